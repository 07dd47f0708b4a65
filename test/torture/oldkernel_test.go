// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

var oldKills = flag.Int("torture.oldkernel", 0, "kills in TestOldKernel (10, or 60 in make test-all)")

// TestOldKernel: on a kernel without passthrough, which cannot send again what was in flight either, everything survives the
// worker as it does on a new one: every read and write is in flight at some kill. The VMM is a real one, with its locks.
func TestOldKernel(t *testing.T) {
	kills := *oldKills
	if kills == 0 {
		need.Long(t) // an emulated guest
		kills = 60
	}
	hammer := filepath.Join(t.TempDir(), "hammer")
	build := exec.Command("go", "build", "-o", hammer, "./hammer")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build hammer: %v\n%s", err, out)
	}
	disk := filepath.Join(t.TempDir(), "disk.img")
	harness.Run(t, "truncate", "-s", "256M", disk).OK(t)
	r := harness.StockKernel(t).
		With(harness.Imgward(), hammer, "mkfs.ext4", "qemu-storage-daemon", "qemu-io").
		Disk(disk).Modules("fuse", "ext4").
		Run(fmt.Sprintf(oldKernelScript, kills))
	t.Logf("exit %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	if r.Exit != 0 {
		t.Fatal("the script failed")
	}
	wanted := map[string]string{
		"work of the hammer's":  `[1-9]\d* operations, the longest took`,
		"rounds of the VMM's":   `[1-9]\d* rounds of the VMM`,
		"refusal in the events": `refused: truncate of vm\.img by dd \(pid \d+\)`,
		"who names the VMM":     `who: .*(qemu-storage-|pid \d+)`,
	}
	if os.Getenv("IMGWARD_TEST_STOCK") == "" { // else it is to run on whatever that is
		wanted["an old kernel"] = `(?m)^6\.1\.`
		wanted["doctor on the lack of features"] = `no FUSE passthrough`
	}
	for what, pattern := range wanted {
		if !regexp.MustCompile(pattern).MatchString(r.Stdout + r.Stderr) {
			t.Errorf("no %s (%s)", what, pattern)
		}
	}
	m := regexp.MustCompile(`"takeovers":(\d+)`).FindStringSubmatch(r.Stdout)
	if m == nil {
		t.Fatal("no status")
	}
	if n, _ := strconv.Atoi(m[1]); n < kills/2 {
		t.Errorf("%d kills, but only %d take-overs", kills, n)
	}
}

const oldKernelScript = `
kills=%d
uname -r
mkfs.ext4 -q /dev/vda && mkdir /images && mount -t ext4 /dev/vda /images || exit 1
truncate -s 16M /images/vm.img
mkdir -p /etc/imgward; echo 'second-layer = "off"' >/etc/imgward/policy.toml # the view alone
imgward mount /images || exit 1
worker() { imgward status --json /images | sed -n 's/.*"type":"view".*"pid":\([0-9]*\).*/\1/p'; }

qemu-storage-daemon --blockdev driver=file,filename=/images/vm.img,node-name=disk,cache.direct=on \
  --nbd-server addr.type=unix,addr.path=/tmp/nbd --export type=nbd,id=disk,node-name=disk,writable=on &
vmm=$!
until [ -S /tmp/nbd ]; do sleep 0.1; done
hammer /images /tmp/stop &
hammer=$!
guest() { # writes through the VMM and reads what it wrote
	n=0
	while [ ! -e /tmp/stop ]; do
		n=$((n + 1)) p=$((n %% 255 + 1)) at=$((n %% 60 * 256))k
		qemu-io -f raw -c "write -q -P $p $at 64k" -c flush -c "read -P $p $at 64k" 'nbd+unix:///disk?socket=/tmp/nbd' >/tmp/io.log 2>&1 &&
			! grep -q 'verification failed' /tmp/io.log || { cat /tmp/io.log; return 1; }
	done
	echo "$n rounds of the VMM"
}
guest & guest=$!

for i in $(seq $kills); do
	pid=$(worker)
	[ -n "$pid" ] && kill -9 $pid || { echo "no worker to kill: '$pid'"; exit 1; }
	sleep 0.$((RANDOM %% 9))
	[ $((i %% 10)) = 0 ] || continue
	dd if=/dev/zero of=/images/vm.img bs=1k count=1 2>/tmp/dd.log && { echo "dd got through"; exit 1; }
	truncate -s 0 /images/vm.img 2>/dev/null && { echo "truncate got through"; exit 1; }
	rm -f /images/vm.img 2>/dev/null; mv /images/vm.img /images/x 2>/dev/null
	[ "$(stat -c %%s /images/vm.img)" = 16777216 ] || { echo "the image is gone or cut"; exit 1; }
done
while next=$(worker); [ -z "$next" ] || [ "$next" = "$pid" ]; do sleep 0.1; done
imgward upgrade || exit 1
imgward events /images | grep 'dd ' | tail -n 1
echo "who: $(imgward who /images/vm.img)"
imgward check truncate /images/vm.img; [ $? = 3 ] || { echo "check says that truncate would pass"; exit 1; }
imgward doctor
touch /tmp/stop
wait $hammer || { echo "hammer failed"; imgward events /images | grep hammer | head -n 20; exit 1; }
wait $guest || { echo "the VMM's I/O failed"; exit 1; }
imgward status --json /images
kill $vmm; wait $vmm
truncate -s 0 /images/vm.img || { echo "an idle image cannot be cut"; exit 1; }
imgward umount /images
`

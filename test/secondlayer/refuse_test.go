// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

// command is one that destroys $T, a file or a block device with the numbers $M, where nobody uses it.
type command struct{ name, script, only string }

var commands = []command{
	{"dd", "/bin/dd if=/dev/zero of=$T bs=4k count=1", ""},
	{"dd conv=notrunc", "/bin/dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc", ""},
	{"append", "echo x >>$T", ""},
	{"/proc/PID/fd", "(exec 3<$T; dd if=/dev/zero of=/proc/self/fd/3 bs=4k count=1 conv=notrunc)", ""},
	{"cp", "cp /bin/busybox $T", ""},
	{"mkfs", "mkfs.ext4 -q -F $T", ""},
	{"wipefs", "wipefs -a -f $T", ""},
	{"losetup", "/bin/losetup -f $T && /bin/losetup -d /dev/loop0", ""},
	{"mknod", "mknod /tmp/node b $M && (dd if=/dev/zero of=/tmp/node bs=4k count=1 conv=notrunc; r=$?; rm /tmp/node; exit $r)", "device"},
	{"blkdiscard", "/bin/blkdiscard -f $T", "device"},
	{"truncate", "/bin/truncate -s 0 $T", "file"},
	{"grow", "/bin/truncate -s +1M $T", "file"},
	{"rm", "/bin/rm -f $T", "file"},
	{"mv away", "/bin/mv -f $T $T.new", "file"},
	{"mv over", "echo x >$T.other; /bin/mv -f $T.other $T", "file"},
	{"exchange", "echo x >$T.other; layer exchange $T.other $T", "file"},
	{"hard link", "ln $T $T.link && (dd if=/dev/zero of=$T.link bs=4k count=1 conv=notrunc; r=$?; rm $T.link; exit $r)", "file"},
	{"chattr", "chattr +i $T && chattr -i $T", "file"},
	{"mount -o loop", "/bin/mount -o loop $T /loop 2>&1 | grep \"wrong fs\"", "file"}, // so it got as far as reading it
}

// prelude has functions for the scripts: attempt NAME COMMAND says whether a command passed, and whether $T is as it was.
const prelude = `
export LAYER=1
layer() { /bin/layer "$@"; }
sum() { [ -e $T ] && md5sum <$T || echo gone; }
pristine() { [ -e $T ] || : >$T; cat /pristine >$T; rm -f $T.new $T.other $T.link; }
attempt() {
	before=$(sum)
	if (eval "$2") >/tmp/out 2>&1; then r=passed; else r=refused; fi
	if [ "$before" = "$(sum)" ]; then c=same; else c=CHANGED; fi
	echo "$PHASE|$1|$r|$c|$(tr '\n' ' ' </tmp/out | tail -c 120)"
}
mkfs.ext4 -q -b 4096 -O verity /dev/vdb; mkdir -p /data /loop; mount -t ext4 /dev/vdb /data
dd if=/dev/urandom of=/pristine bs=1M count=2 2>/dev/null
dmsetup create vm --table "0 4096 linear /dev/vda 2048" && dmsetup create other --table "0 4096 linear /dev/vda 8192" || exit 1
dmsetup mknodes
cp /pristine /data/disk.img; /bin/losetup /dev/loop7 /data/disk.img
vm() { # DRIVER FILE: a VM that has it open for writing
	qemu-storage-daemon --blockdev driver=$1,filename=$2,node-name=d --nbd-server addr.type=unix,addr.path=/tmp/nbd \
		--export type=nbd,id=e,node-name=d,writable=on --pidfile /tmp/pid --daemonize || exit 1
	pid=$(cat /tmp/pid)
}
stop() { kill $pid; while [ -e /proc/$pid ]; do sleep 0.1; done; }
`

// phase runs the commands on one target while a VM runs, and again, for what they do, when it has stopped.
func phase(name, target, driver string) string {
	kind := "file"
	if driver == "host_device" {
		kind = "device"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "T=%s\n[ ! -b $T ] || M=$(/bin/stat -L -c '%%Hr %%Lr' $T)\npristine\nvm %s $T\n", target, driver)
	for _, when := range []string{"running", "stopped"} {
		fmt.Fprintf(&b, "PHASE='%s %s'\n", name, when)
		for _, c := range commands {
			if c.only != "" && c.only != kind {
				continue
			}
			if when == "stopped" {
				b.WriteString("pristine\n")
			}
			fmt.Fprintf(&b, "attempt '%s' '%s'\n", c.name, c.script)
		}
		if when == "running" {
			b.WriteString("attempt read 'dd if=$T of=/dev/null'\nattempt 'losetup -r' '/bin/losetup -r -f $T && /bin/losetup -d /dev/loop0'\nstop\n")
		}
	}
	return b.String()
}

var readers = []string{"read", "losetup -r"}

// judge compares what the commands came to with what they should have.
func judge(t *testing.T, out string) (seen int) {
	t.Helper()
	for _, line := range strings.Split(out, "\n") {
		f := strings.Split(line, "|")
		if len(f) < 5 {
			continue
		}
		seen++
		want, sum := "refused", "same"
		if strings.HasSuffix(f[0], "stopped") || slices.Contains(readers, f[1]) {
			want = "passed"
		}
		if f[2] != want || want == "refused" && f[3] != sum {
			t.Errorf("%s: %s is %s, contents %s: %s", f[0], f[1], f[2], f[3], f[4])
		}
	}
	return seen
}

// TestRefuse: on a mapped device, a loop device and a file, with the evidence that the kernel counts alone, and nobody of
// imgward's alive.
func TestRefuse(t *testing.T) {
	need.Long(t)
	r := guest(t).Run(prelude + "layer load vmm=/bin/qemu-storage-daemon || exit 1\n" +
		phase("mapped device", "/dev/mapper/vm", "host_device") + phase("loop device", "/dev/loop7", "host_device") +
		phase("file", "/data/vm.img", "file") + "layer refusals; dmesg | tail -3\n")
	t.Log(r.Stdout, r.Stderr)
	if n := judge(t, r.Stdout); n < 80 || r.Exit != 0 {
		t.Errorf("%d cases, exit %d", n, r.Exit)
	}
}

func guest(t *testing.T) *harness.Stock {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := harness.StockKernel(t).With(self, "qemu-storage-daemon", "dd", "mkfs.ext4", "wipefs", "losetup", "blkdiscard", "truncate", "mount",
		"umount", "chattr", "dmsetup", "stat", "rm", "mv", "ln", harness.Imgward()).File("/bin/layer", self).Modules("dm-mod", "loop", "ext4")
	for _, name := range []string{"a", "b"} {
		disk := t.TempDir() + "/" + name
		harness.Run(t, "truncate", "-s", "64M", disk).OK(t)
		g.Disk(disk)
	}
	return g
}

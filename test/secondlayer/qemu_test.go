// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"testing"

	"imgward/test/need"
)

// TestQEMU: what QEMU does to its disks every day, without libvirt, goes on with the layer in force.
func TestQEMU(t *testing.T) {
	need.Long(t)
	r := guest(t).With("qemu-img", "qemu-io", "qemu-nbd", "perl").Run(prelude + `
mkdir -p /etc/imgward
echo 'vmm = ["/bin/qemu-storage-daemon", "/bin/qemu-nbd", "/bin/perl"]' >/etc/imgward/policy.toml
imgward guard --log /tmp/guard.log || exit 1
T=/data/qemu.qcow2; PHASE='qemu stopped'
qmp() { printf '%s\n' "$1" >&8; while read -r line <&9; do case $line in *'"error"'*) echo "$line"; return 1 ;; *'"return"'*) return ;; esac; done; }
ready() { qmp '{"execute":"query-jobs"}'; case $line in *'"ready"'*) ;; *) return 1 ;; esac; }
attempt create 'qemu-img create -q -f qcow2 $T 8M && qemu-img create -q -f qcow2 $T.over 8M'
mkfifo /tmp/qmp.in /tmp/qmp.out
/bin/qemu-storage-daemon --chardev pipe,id=c,path=/tmp/qmp --monitor chardev=c --blockdev driver=qcow2,node-name=d,discard=unmap,file.driver=file,file.filename=$T,file.discard=unmap \
	--nbd-server addr.type=unix,addr.path=/tmp/nbd --export type=nbd,id=e,node-name=d,writable=on --pidfile /tmp/pid & pid=$!
exec 8>/tmp/qmp.in 9</tmp/qmp.out
attempt monitor "qmp '{\"execute\":\"qmp_capabilities\"}'"
nbd() { qemu-io -f raw -c "$1" 'nbd+unix:///d?socket=/tmp/nbd'; }
attempt 'write and discard' 'nbd "write 0 1M" && nbd "discard 0 1M" && nbd "write 64k 64k"'
attempt overlay "qmp '{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":\"qcow2\",\"node-name\":\"o\",\"file\":{\"driver\":\"file\",\"filename\":\"$T.over\"},\"backing\":null}}'"
attempt snapshot "qmp '{\"execute\":\"blockdev-snapshot\",\"arguments\":{\"node\":\"d\",\"overlay\":\"o\"}}'"
attempt 'write to the overlay' 'nbd "write 0 64k"'
attempt unexport "qmp '{\"execute\":\"block-export-del\",\"arguments\":{\"id\":\"e\",\"mode\":\"hard\"}}'; sleep 1"
attempt resize "qmp '{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"o\",\"size\":16777216}}'"
attempt commit "qmp '{\"execute\":\"block-commit\",\"arguments\":{\"job-id\":\"j\",\"device\":\"o\"}}' && until ready; do sleep 0.1; done"
PHASE='qemu running'; attempt rm 'rm $T'; attempt 'rm overlay' 'rm $T.over'
exec 8>&- 9<&-; kill $pid; wait $pid
PHASE='qemu stopped'; attempt 'rm when it has stopped' 'rm $T $T.over'

# What QEMU makes for itself it removes as soon as it has it open: guests' memory on hugetlbfs as well. The kernel alone is asked: a
# guard that looks around just then declares what a VMM has open.
for p in $(pidof imgward); do kill -9 $p; done
mkdir -p /data/tmp; PHASE='killed stopped'
attempt 'overlay that goes' 'TMPDIR=/data/tmp qemu-nbd -s -f raw -k /tmp/s -t --fork --pid-file=/tmp/s.pid /pristine; ls /data/tmp; [ -z "$(ls /data/tmp)" ]'
kill $(cat /tmp/s.pid)
# What another VMM has open as well it does not remove.
cp /pristine /data/two.img; vm file /data/two.img; PHASE='killed running'
attempt 'rm by another VMM that has it open' "perl -e 'open F,q(+<),\$ARGV[0] or die qq(open: \$!); unlink \$ARGV[0] or die qq(unlink: \$!)' /data/two.img"
stop; imgward guard --log /tmp/guard.log && imgward guard stop
`)
	t.Log(r.Stdout, r.Stderr)
	if n := judge(t, r.Stdout); n < 14 || r.Exit != 0 {
		t.Errorf("%d cases, exit %d", n, r.Exit)
	}
}

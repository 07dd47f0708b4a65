// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"strings"
	"testing"

	"imgward/test/need"
)

// guardScript is TestGuard's.
const guardScript = `
alias imgward=/bin/imgward
mkdir -p /run/libvirt/qemu /images/golden /images/scratch /beside /data/dir/below /etc/imgward
printf 'second-layer = "strict"\nvmm = ["/bin/qemu-storage-daemon"]\n[[rule]]\npaths = ["golden/*"]\nprotect = "always"\n[[rule]]\npaths = ["scratch/*"]\nprotect = "never"\n' >/etc/imgward/policy.toml
mount --bind /images /beside
domain() { # NAME PID KIND SOURCE
	case $3 in block) attr=dev ;; file) attr=file ;; esac
	echo "<domstatus state='running' pid='$2'><domain><name>$1</name><devices><disk type='$3'><source $attr='$4'/><target dev='vda'/></disk></devices></domain></domstatus>" >/run/libvirt/qemu/$1.xml.new
	mv /run/libvirt/qemu/$1.xml.new /run/libvirt/qemu/$1.xml
}
held() { imgward status --json | grep '"hold"' | grep "\"$1\"" | grep -qv '"left"'; }
await() { i=0; until "$@"; do i=$((i+1)); [ $i -lt 600 ] || { echo "in vain: $*"; imgward status; exit 1; }; sleep 0.3; done; }
for f in /images/vm.img /images/open.img /images/golden/base.img /images/scratch/s.img /data/direct.img /data/dir/below/deep.img; do cp /pristine $f; done
cat /pristine >/dev/mapper/vm
exec 7<>/data/direct.img
imgward guard --log /tmp/guard.log || exit 1
imgward mount /images || exit 1
views=$(imgward status --json | sed -n 's/.*"type":"view".*"pid":\([0-9]*\),"keeper_pid":\([0-9]*\).*/\1 \2/p')
imgward status --json
sleep 10000 & vm1=$!; sleep 10000 & vm2=$!; sleep 10000 & vm3=$!
exec 7>&-; exec 7<>/data/direct.img # the VMs have it no more
domain lv $vm1 block /dev/mapper/vm; domain view $vm2 file /images/vm.img; domain direct $vm3 file /data/direct.img
domain deep $vm3 file /data/dir/below/deep.img; domain scratch $vm2 file /images/scratch/s.img
await held /dev/dm-0; await held /images/vm.img
imgward status
attack() {
	T=/dev/mapper/vm; attempt lv 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
	attempt 'disk below' 'dd if=/dev/zero of=/dev/vda bs=4k seek=1000 count=1 conv=notrunc'
	attempt "the file system's disk" 'dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=notrunc'
	T=/beside/vm.img; attempt beside 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
	T=/data/direct.img; attempt direct 'rm $T'; attempt 'descriptor from before' 'echo x >&7'
	T=/data/dir/below/deep.img; attempt 'mv directory' 'mv /data/dir /data/gone'
}
# Of the files that a rule keeps the kernel hears when the view has been gone through.
golden() { ! (: >>/beside/golden/base.img) 2>/dev/null; }
await golden
PHASE='guarded running'; attack; attempt 'mv its directory' 'mv /data/dir/below /data/below'
T=/dev/mapper/vm; attempt setro '/bin/blockdev --setro $T'
T=/images/vm.img; attempt view 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
T=/data/direct.img; attempt 'a mount over it' 'mount --bind /pristine $T'
T=/beside/golden/base.img; attempt 'kept always' 'rm $T'
T=/data/direct.img
script -qec 'dd if=/dev/zero of=/data/direct.img bs=4k count=1; rm /data/direct.img; dd if=/dev/zero of=/dev/mapper/vm bs=4k count=1; mv /data/dir /data/gone; sleep 3' /tmp/typescript </dev/null >/dev/null; cat /tmp/typescript
imgward events --json
imgward who /data/direct.img
imgward doctor -a
PHASE='legit stopped'
T=/beside/scratch/s.img; attempt 'never kept' 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
attempt "a directory in nobody's way" 'mkdir /data/other && mv /data/other /data/more && rmdir /data/more'
attempt 'other mapped devices' 'dmsetup create third --table "0 4096 linear /dev/vda 20480" && dmsetup remove third && dmsetup remove other'
T=/data/direct.img
imgward allow --op rename --for 5m --reason test $T
PHASE='allowed stopped'; attempt exception 'mv $T $T.new && mv $T.new $T'
imgward allow --revoke 1 /dev/mapper/vm
PHASE='revoked running'; attempt exception 'mv $T $T.new'
imgward events --json | grep exception

# A VMM that libvirt does not know, through the view.
T=/images/open.img; vm file $T 7>&- # or it has that as well
await held /images/open.img
PHASE='open running'
attempt 'umount -l' 'umount -l /images'; attempt rm 'rm $T'; attempt 'rm beside' 'rm /beside/open.img'
imgward allow --op truncate,write,unlink --for 5m --reason test $T
PHASE='open stopped'; attempt "a view's exception" 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc && rm $T'
stop

PHASE='killed running'
for p in $(pidof imgward); do case " $views " in *" $p "*) ;; *) kill -9 $p ;; esac; done
sleep 1; echo "views $views of $(pidof imgward)"; attack
imgward status
PHASE='killed stopped'
kill $vm1 $vm2 $vm3; wait $vm1 $vm2 $vm3
T=/dev/mapper/vm; attempt lv 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
T=/data/direct.img; attempt direct 'mv $T $T.new; mv $T.new $T'
T=/data/dir/below/deep.img; attempt 'mv directory' 'mv /data/dir /data/gone && mv /data/gone /data/dir'
imgward guard --log /tmp/guard.log || exit 1
sleep 10000 & vm1=$!; domain lv $vm1 block /dev/mapper/vm; await held /dev/dm-0
imgward status
# Whoever is faster than the guard tries again.
soon() { i=0; until (eval "$1") >/tmp/out 2>&1; do i=$((i+1)); [ $i -lt 600 ] || return 1; sleep 0.01; done; echo "$1: try $((i+1))"; }
kill $vm1; wait $vm1
PHASE='ended stopped'; T=/dev/mapper/vm
attempt mkfs 'soon "mkfs.ext4 -q -F $T"'; attempt mount 'soon "mount -t ext4 $T /mnt"; umount /mnt'; attempt remove 'soon "dmsetup remove vm"'
rm /run/libvirt/qemu/*
imgward guard stop || { sleep 10; ls /run/imgward /sys/fs/bpf/imgward/*; cat /tmp/guard.log; }
PHASE='gone stopped'
attempt 'nothing is left' '[ -z "$(ls /sys/fs/bpf)" ]'
grep -E 'level=(WARN|ERROR)' /tmp/guard.log
`

// TestGuard: `imgward guard` with what libvirt's files and the policy say, in the words of a view's refusals, and with all its
// processes killed.
func TestGuard(t *testing.T) {
	need.Long(t)
	r := guest(t).With("blockdev", "script").Modules("fuse").Run(prelude + guardScript)
	t.Log(r.Stdout, r.Stderr)
	for _, said := range []string{
		`"type":"guard-begin"`, "lsm: on, strict", "guard: DOES NOT RUN", "/dev/dm-0 is protected by claims, lsm", "would rename dir: ",
		"the second layer's lsm is on",
	} {
		if !strings.Contains(r.Stdout, said) {
			t.Errorf("nowhere is it said: %s", said)
		}
	}
	for _, said := range []string{"would truncate direct.img: it is vda of running domain direct", "would remove direct.img", "would write to dm-0: it is vda of running domain lv"} {
		if !strings.Contains(r.Stdout, said) {
			t.Errorf("nobody said on the terminal that a command %s", said)
		}
	}
	if n := judge(t, r.Stdout); n < 35 || r.Exit != 0 {
		t.Errorf("%d cases, exit %d", n, r.Exit)
	}
}

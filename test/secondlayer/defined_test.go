// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"testing"

	"imgward/test/need"
)

// definedScript is TestDefined's: domains that are shut off, under a rule that protects the disks of those, and under one that does not.
const definedScript = `
alias imgward=/bin/imgward
mkdir -p /etc/libvirt/qemu /images/kept /images/loose /beside /etc/imgward
cp /bin/busybox /bin/busybox-manager
mount --bind /images /beside
rules() { # DEFAULT RULE
	printf 'protect = "%s"\nmanager = ["/bin/busybox-manager"]\nvmm = ["/bin/qemu-storage-daemon"]\n[[rule]]\npaths = ["kept/*"]\nprotect = "%s"\n' $1 $2 >/etc/imgward/policy.toml.new
	mv /etc/imgward/policy.toml.new /etc/imgward/policy.toml
}
define() { # NAME KIND SOURCE
	case $2 in block) attr=dev ;; file) attr=file ;; esac
	echo "<domain type='kvm'><name>$1</name><devices><disk type='$2'><source $attr='$3'/><target dev='vda'/></disk></devices></domain>" >/etc/libvirt/qemu/$1.xml.new
	mv /etc/libvirt/qemu/$1.xml.new /etc/libvirt/qemu/$1.xml
}
await() { i=0; until (eval "$1") 2>/dev/null; do i=$((i+1)); [ $i -lt 600 ] || { echo "in vain: $1"; imgward status; cat /tmp/guard.log; exit 1; }; sleep 0.1; done; }
for f in /data/off.img /data/managed.img /data/none.img /images/kept/a.img /images/loose/b.img; do cp /pristine $f; done
T=/dev/mapper/vm; pristine
define off file /data/off.img; define managed file /data/managed.img; define lv block $T
define kept file /images/kept/a.img; define loose file /images/loose/b.img

rules running defined
imgward guard --log /tmp/guard.log || exit 1
imgward mount /images || exit 1
await '! (: >>/beside/kept/a.img)'
PHASE='rule running'
T=/beside/kept/a.img; attempt dd 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'; attempt rm 'rm $T'; attempt 'mv away' 'mv $T $T.new'
PHASE='rule of others stopped'
T=/data/off.img; attempt 'shut off' 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
T=/beside/loose/b.img; attempt 'shut off in the view' 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
T=/dev/mapper/vm; attempt 'device' 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'; attempt mkfs 'mkfs.ext4 -q -F $T'

rules defined running; kill -HUP $(pidof imgward)
await '! (: >>/data/off.img)'; await '! (: >>/dev/mapper/vm)'
attack() {
	T=/data/off.img
	attempt dd 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'; attempt truncate '/bin/truncate -s 0 $T'; attempt rm 'rm $T'; attempt 'mv away' 'mv $T $T.new'
	T=/dev/mapper/vm; attempt 'dd device' 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'; attempt 'mkfs device' 'mkfs.ext4 -q -F $T'
}
PHASE='defined running'; attack; T=/beside/loose/b.img; attempt 'dd beside the view' 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
PHASE='defined, rule of others stopped'
T=/beside/kept/a.img; attempt dd 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
T=/data/none.img; attempt dd 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
PHASE='managers stopped'
T=/data/managed.img; attempt write 'busybox-manager dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
attempt truncate 'busybox-manager truncate -s 1M $T'; attempt rename 'busybox-manager mv $T $T.new && busybox-manager mv $T.new $T'
T=/data/off.img
vm file $T
PHASE='managers running'
attempt truncate 'busybox-manager truncate -s 1M $T'; attempt rename 'busybox-manager mv $T $T.new'
stop
PHASE='killed running'
views=$(imgward status --json | sed -n 's/.*"type":"view".*"pid":\([0-9]*\),"keeper_pid":\([0-9]*\).*/\1 \2/p')
for p in $(pidof imgward); do case " $views " in *" $p "*) ;; *) kill -9 $p ;; esac; done
sleep 1; attack
imgward guard --log /tmp/guard.log || exit 1
PHASE='undefined stopped'
rm /etc/libvirt/qemu/off.xml /etc/libvirt/qemu/lv.xml
await ': >>/data/off.img'; await ': >>/dev/mapper/vm'
T=/dev/mapper/vm; attempt mkfs 'mkfs.ext4 -q -F $T'
T=/data/off.img; attempt rm 'rm $T'
imgward umount /images
imgward guard stop
grep -E 'level=(WARN|ERROR)' /tmp/guard.log
`

// TestDefined: a rule that protects the disks of domains that are shut off holds in the kernel, for files, in views and beside
// them, and for devices, from all but managers, and for no other disk.
func TestDefined(t *testing.T) {
	need.Long(t)
	r := guest(t).Modules("fuse").Run(prelude + definedScript)
	t.Log(r.Stdout, r.Stderr)
	if n := judge(t, r.Stdout); n < 28 || r.Exit != 0 {
		t.Errorf("%d cases, exit %d", n, r.Exit)
	}
}

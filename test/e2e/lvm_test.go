// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"regexp"
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

// lvmScript runs in a guest with device-mapper: a VM on an LV, claimed; what LVM does with others, and with that one.
const lvmScript = `
export LVM_SUPPRESS_FD_WARNINGS=1 DM_DISABLE_UDEV=1
mkdir -p /etc/lvm /run/lvm /run/lock/lvm /mnt
printf 'devices { scan_lvs = 0 use_devicesfile = 0 }\nactivation { udev_sync = 0 udev_rules = 0 monitoring = 0 }\nglobal { use_lvmpolld = 0 }\n' >/etc/lvm/lvm.conf
lvm() { command lvm "$@" 2>&1; }
ok() { "$@" >/tmp/out 2>&1 || { echo "FAILED: $*"; cat /tmp/out; exit 1; }; }
refused() { if "$@" >/tmp/out 2>&1; then echo "NOT REFUSED: $*"; cat /tmp/out; exit 1; elif ! grep -Eiq 'busy|in use|exclusively' /tmp/out; then echo "NOT FOR BEING BUSY: $*"; cat /tmp/out; exit 1; else echo "refused: $*"; fi; }
unchanged() { [ "$(sha256sum <$LV)" = "$SUM" ] || { echo "CHANGED after $*"; exit 1; }; }
held() { imgward status --json | grep '"hold"' | grep "\"$1\"" | grep -v '"left"'; }
await() { i=0; until "$@" >/dev/null; do i=$((i+1)); [ $i -lt 600 ] || { echo "in vain: $*"; imgward status; cat /tmp/guard.log; exit 1; }; sleep 0.1; done; }
free() { ! held "$1"; }

ok lvm pvcreate /dev/vda
ok lvm vgcreate vg /dev/vda
for lv in one two; do ok lvm lvcreate -an -L 32M -n $lv -Zn -Wn vg; ok lvm lvchange -ay vg/$lv; done
LV=/dev/mapper/vg-one
[ -e $LV ] || ok dmsetup mknodes
ok mkfs.ext4 -q -F $LV
sync
SUM=$(sha256sum <$LV)
DM=/dev/$(basename $(readlink -f /sys/dev/block/$(dmsetup info -c --noheadings -o major,minor --separator : vg-one)))
ok imgward guard --log /tmp/guard.log
qemu-nbd -t -k /tmp/nbd.sock -f raw --cache=none $LV &
VM=$!
await held $DM
echo "claimed: $DM"
for c in "mkfs.ext4 -q -F $LV" "mkfs.xfs -q -f $LV" "wipefs -a $LV" "/bin/mkswap $LV" "/bin/mount -t ext4 $LV /mnt" "/bin/mount -t ext4 -o ro $LV /mnt" \
	"lvm lvremove -f vg/one" "lvm lvchange -an vg/one"; do refused $c; unchanged $c; done
# Others, and what is done to a disk in use every day.
ok lvm lvcreate -y -L 16M -n three -Zn -Wn vg
ok lvm lvextend -L +16M vg/three
ok lvm lvextend -L +16M vg/two
ok mkfs.ext4 -q -F /dev/mapper/vg-two
ok lvm lvremove -f vg/three
ok lvm lvcreate -y -s -L 16M -n snap vg/one
ok lvm lvremove -f vg/snap
ok lvm lvextend -L +16M vg/one
ok lvm lvrename vg one uno
ok lvm lvrename vg uno one
echo "others unhindered"
SUM=$(sha256sum <$LV)
refused mkfs.ext4 -q -F $LV; unchanged mkfs
# The worker dies, then everything goes on.
P=$(imgward status --json | sed -n 's/^{"type":"guard","pid":\([0-9]*\).*/\1/p')
kill -9 $P
refused mkfs.ext4 -q -F $LV; unchanged "mkfs, with the worker killed"
await held $DM
imgward who $LV || exit 1
kill $VM; wait $VM
await free $DM
ok mkfs.ext4 -q -F $LV
ok lvm lvremove -f vg/one
ok imgward guard stop
[ -z "$(ls /run/imgward)" ] || { echo "left: $(ls /run/imgward)"; exit 1; }
echo "all done"
`

// TestClaimsLVM: logical volumes, in a guest that has device-mapper.
func TestClaimsLVM(t *testing.T) {
	if harness.Native() {
		return
	}
	need.Long(t) // an emulated guest
	need.Have(t, need.Tools("qemu-nbd", "lvm", "dmsetup", "mkfs.xfs"))
	disk := filepath.Join(t.TempDir(), "disk.img")
	harness.Run(t, "truncate", "-s", "256M", disk).OK(t)
	r := harness.StockKernel(t).With(harness.Imgward(), "lvm", "dmsetup", "mkfs.ext4", "mkfs.xfs", "wipefs", "mkswap", "mount", "qemu-nbd").Disk(disk).
		Modules("ext4", "dm-mod", "dm-snapshot").Run(lvmScript)
	t.Log(r.Stdout)
	if r.Exit != 0 || !regexp.MustCompile(`(?m)^all done$`).MatchString(r.Stdout) {
		t.Fatalf("exit %d\n%s", r.Exit, r.Stderr)
	}
}

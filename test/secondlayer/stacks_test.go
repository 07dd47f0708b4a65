// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

// stacksScript is TestStacks': an array of two disks, and a LUN that is reached by two paths. A VM is on each of them, on what is
// above, and on what is below.
const stacksScript = `
alias imgward=/bin/imgward
mkdir -p /etc/imgward /elsewhere
echo 'vmm = ["/bin/qemu-storage-daemon"]' >/etc/imgward/policy.toml
held() { imgward status --json | grep '"hold"' | grep "\"$1\"" | grep -qv '"left"'; }
await() { i=0; until (eval "$1") >/tmp/out 2>&1; do i=$((i+1)); [ $i -lt 600 ] || { echo "in vain: $1"; cat /tmp/out; imgward status; cat /tmp/guard.log; exit 1; }; sleep 0.1; done; }
# writes DEVICE…: each of them is refused.
writes() {
	for d in "$@"; do
		attempt "dd $d" "dd if=/dev/zero of=$d bs=4k count=1 conv=notrunc"
		attempt "mkfs $d" "mkfs.ext4 -q -F $d"
		attempt "wipefs $d" "wipefs -a -f $d"
		attempt "mount $d" "/bin/mount -t ext4 $d /elsewhere"
	done
}
using() { T=$1; cat /pristine >$T; vm host_device $T; await "! (: >>$T)"; await "held $2"; }
refused() { ! (: >>$1) 2>/dev/null; }
ended() { stop; await ": >>$T"; await "! held $1"; }

echo 1 >/sys/bus/pseudo/drivers/scsi_debug/add_host
i=0; until [ -b /dev/sdb ] || [ $((i=i+1)) = 100 ]; do sleep 0.1; done; ls /sys/block
[ -b /dev/sdb ] && [ "$(cat /sys/block/sda/size)" = "$(cat /sys/block/sdb/size)" ] || exit 1
cat /pristine >/dev/sda; sync; cmp -n 1000000 /pristine /dev/sdb || exit 1
size=$(cat /sys/block/sda/size)
paths() { echo "0 $size multipath 2 queue_mode bio 0 1 1 round-robin 0 $# 1 $(for p in "$@"; do echo "$p 1000"; done | tr '\n' ' ')"; }
dmsetup create mp --table "$(paths /dev/sda /dev/sdb)" && dmsetup mknodes && dmsetup create mp1 --table "0 4096 linear /dev/mapper/mp 2048" && dmsetup mknodes || exit 1
mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 --assume-clean /dev/vdc /dev/vdd 2>&1 || exit 1
dmsetup create onmd --table "0 4096 linear /dev/md0 2048" && dmsetup mknodes || exit 1
echo 1 >/sys/module/loop/parameters/max_part 2>/dev/null
kernel() { echo /dev/$(dmsetup info -c --noheadings -o blkdevname $1); }
ONMD=$(kernel onmd) MP1=$(kernel mp1)
imgward guard --log /tmp/guard.log || exit 1

PHASE='array running'
using /dev/md0 $ONMD # the volume above it is held for it
writes /dev/md0 /dev/mapper/onmd /dev/vdc /dev/vdd
attempt 'mdadm --stop' 'mdadm --stop /dev/md0'
attempt 'mdadm --readonly' 'mdadm --readonly /dev/md0'
attempt 'mdadm --zero-superblock' 'mdadm --zero-superblock /dev/vdc'
attempt 'mdadm --create' 'mdadm --create /dev/md1 --run --force --level=0 --raid-devices=1 /dev/vdc'
PHASE='array legit stopped'
attempt 'a disk fails and comes back' 'mdadm /dev/md0 --fail /dev/vdd && mdadm /dev/md0 --remove /dev/vdd && mdadm /dev/md0 --add /dev/vdd && mdadm --wait /dev/md0 || grep -q "\[UU\]" /proc/mdstat'
attempt detail 'mdadm --detail /dev/md0 && mdadm --examine /dev/vdc'
attempt same 'cmp -n 2000000 /pristine $T'
ended $ONMD
PHASE='array stopped'
attempt 'mkfs when it has stopped' 'mkfs.ext4 -q -F /dev/mapper/onmd'

PHASE='above an array running'
using /dev/mapper/onmd $ONMD
writes /dev/mapper/onmd /dev/md0 /dev/vdc
attempt 'dmsetup remove' 'dmsetup remove onmd'
ended $ONMD

PHASE='member of an array running'
T=/dev/vdc; vm host_device $T; await 'refused /dev/md0'
attempt 'dd md0' 'dd if=/dev/zero of=/dev/md0 bs=4k count=1 conv=notrunc'
attempt 'dd onmd' 'dd if=/dev/zero of=/dev/mapper/onmd bs=4k count=1 conv=notrunc'
attempt 'mkfs onmd' 'mkfs.ext4 -q -F /dev/mapper/onmd'
stop; await ': >>/dev/md0'

PHASE='multipath running'
using /dev/mapper/mp $MP1
writes /dev/mapper/mp /dev/mapper/mp1 /dev/sda /dev/sdb
attempt 'dmsetup remove' 'dmsetup remove mp'
PHASE='multipath legit stopped'
attempt 'a path fails and comes back' 'dmsetup message mp 0 fail_path /dev/sdb && dd if=$T of=/dev/null bs=64k count=4 && dmsetup message mp 0 reinstate_path /dev/sdb'
attempt 'a path is taken out' 'dmsetup load mp --table "$(paths /dev/sda)" && dmsetup suspend mp && dmsetup resume mp'
attempt 'its device goes' 'echo 1 >/sys/block/sdb/device/delete'
sleep 6 # longer than the guard takes to look again
attempt 'another comes' 'echo 1 >/sys/bus/pseudo/drivers/scsi_debug/add_host; i=0; until [ -b /dev/sdb ] || [ $((i=i+1)) = 50 ]; do sleep 0.1; done; [ -b /dev/sdb ]'
sleep 6
attempt 'and is a path again' 'dmsetup load mp --table "$(paths /dev/sda /dev/sdb)" && dmsetup suspend mp && dmsetup resume mp'
attempt same 'cmp -n 2000000 /pristine $T'
PHASE='multipath with the path that came back running'
await 'refused /dev/sdb'
writes /dev/sdb
ended $MP1

PHASE='path running'
T=/dev/sda; vm host_device $T; await 'refused /dev/mapper/mp'
attempt 'dd mp' 'dd if=/dev/zero of=/dev/mapper/mp bs=4k count=1 conv=notrunc'
attempt 'mkfs mp1' 'mkfs.ext4 -q -F /dev/mapper/mp1'
stop; await ': >>/dev/mapper/mp'

PHASE='done stopped'; T=/dev/md0
attempt 'all is taken down' 'await "dmsetup remove mp1 && dmsetup remove mp"; await "dmsetup remove onmd && mdadm --stop /dev/md0"; mdadm --zero-superblock /dev/vdc'
imgward guard stop
grep -E 'level=(WARN|ERROR)' /tmp/guard.log
`

// TestStacks: arrays (MD) and multipath devices, with claims and in the kernel: who writes to what a VM is on, or to what is below or
// above it, is refused, and a member or path that is lost comes back.
func TestStacks(t *testing.T) {
	need.Long(t)
	need.Have(t, need.Tools("mdadm"))
	g := guest(t).With("mdadm").Modules("raid1", "dm-multipath", "dm-round-robin", "scsi_debug", "sd_mod")
	for _, name := range []string{"c", "d"} {
		disk := t.TempDir() + "/" + name
		harness.Run(t, "truncate", "-s", "32M", disk).OK(t)
		g.Disk(disk)
	}
	r := g.Run(prelude + stacksScript)
	t.Log(r.Stdout, r.Stderr)
	if n := judge(t, r.Stdout); n < 60 || r.Exit != 0 {
		t.Errorf("%d cases, exit %d", n, r.Exit)
	}
}

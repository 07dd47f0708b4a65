// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

// belowScript is TestBelow's: the file of a loop device that a VM is on, that of a loop device with the file system that an image is on,
// and the disks of a btrfs.
const belowScript = `
alias imgward=/bin/imgward
mkdir -p /etc/imgward /inner /b
echo 'vmm = ["/bin/qemu-storage-daemon"]' >/etc/imgward/policy.toml
await() { i=0; until (eval "$1") 2>/dev/null; do i=$((i+1)); [ $i -lt 600 ] || { echo "in vain: $1"; imgward status; exit 1; }; sleep 0.1; done; }
refused() { ! (: >>$1) 2>/dev/null; }
/bin/truncate -s 16M /data/inner.fs && mkfs.ext4 -q /data/inner.fs && /bin/losetup /dev/loop6 /data/inner.fs && mount -t ext4 /dev/loop6 /inner || exit 1
/bin/losetup /dev/loop5 /dev/mapper/other || exit 1
mkfs.btrfs -q -M -d single -m single /dev/vdc /dev/vdd && mount -t btrfs /dev/vdc /b && btrfs subvolume create /b/vms || exit 1
imgward guard --log /tmp/guard.log || exit 1
guest() { qemu-io -f raw -c "write -P $1 0 64k" -c flush 'nbd+unix:///d?socket=/tmp/nbd'; }
# on DRIVER IMAGE FILE: a VM is on the image, whose bytes are kept in the file, or on the device.
on() {
	T=$2; [ -b $T ] || pristine; vm $1 $T; F=$3; await "refused $T && refused $F"; [ -b $F ] || T=$F
	attempt append 'echo x >>$F'
	attempt 'dd notrunc' 'dd if=/dev/zero of=$F bs=4k seek=99 count=1 conv=notrunc'
	[ -b $F ] || { attempt truncate '/bin/truncate -s 0 $F'; attempt rm '/bin/rm -f $F'; attempt 'mv over' 'echo x >$F.other; /bin/mv -f $F.other $F'; }
	was=$PHASE; PHASE="$PHASE, guest stopped"
	attempt write 'guest 17'
	layer strict; attempt 'write, strict' 'guest 18'; layer lax
	PHASE=$was
}
ended() { stop; PHASE="$PHASE, stopped"; await ": >>$F"; attempt 'dd notrunc' 'dd if=/dev/zero of=$F bs=4k count=1 conv=notrunc'; }

PHASE='file of a loop device running'; on host_device /dev/loop7 /data/disk.img
imgward who /data/disk.img
ended
PHASE='device of a loop device running'; on host_device /dev/loop5 /dev/mapper/other; ended
PHASE='file of a file system running'; on file /inner/vm.img /data/inner.fs; await 'refused /dev/vdb'; attempt 'its disk' 'dd if=/dev/zero of=/dev/vdb bs=4k seek=99 count=1 conv=notrunc'; stop
PHASE='btrfs running'; on file /b/vms/vm.img /dev/vdc; await 'refused /dev/vdd'; attempt 'second disk' 'dd if=/dev/zero of=/dev/vdd bs=4k seek=99 count=1 conv=notrunc'; stop
PHASE='btrfs stopped'; await ': >>/dev/vdd'; attempt 'another label' 'btrfs filesystem label /b new'
imgward guard stop
grep -E 'level=(WARN|ERROR)' /tmp/guard.log
`

// TestBelow: who writes to what the bytes of an image are kept in writes to the image, also where that is a file.
func TestBelow(t *testing.T) {
	need.Long(t)
	need.Have(t, need.Tools("mkfs.btrfs", "btrfs"))
	g := guest(t).With("qemu-io", "mkfs.btrfs", "btrfs").Modules("btrfs")
	for _, name := range []string{"c", "d"} {
		disk := t.TempDir() + "/" + name
		harness.Run(t, "truncate", "-s", "64M", disk).OK(t)
		g.Disk(disk)
	}
	r := g.Run(prelude + belowScript)
	t.Log(r.Stdout, r.Stderr)
	if n := judge(t, r.Stdout); n < 27 || r.Exit != 0 {
		t.Errorf("%d cases, exit %d", n, r.Exit)
	}
}

// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"testing"

	"imgward/test/need"
)

// TestWays: what the kernel alone makes of ways around a view, of who asks, and of file systems that tell two numbers.
func TestWays(t *testing.T) {
	need.Long(t)
	r := guest(t).Modules("overlay", "btrfs", "fuse").Run(prelude + `
for name in manager trusted storage; do cp /bin/busybox /bin/busybox-$name; done
mkdir -p /images /beside /low /up /work /merged /brfs
mount --bind /images /beside
mount -t overlay -o lowerdir=/low,upperdir=/up,workdir=/work o /merged 2>/dev/null || { mkdir -p /data/up /data/work; mount -t overlay -o lowerdir=/low,upperdir=/data/up,workdir=/data/work o /merged; }
cp /bin/qemu-storage-daemon /merged/
cp /bin/qemu-storage-daemon /bin/early

PHASE='from before running'
T=/data/vm.img; pristine
exec 7<>$T
early() { /bin/early --blockdev driver=file,filename=$T,node-name=d --nbd-server addr.type=unix,addr.path=/tmp/nbd \
	--export type=nbd,id=e,node-name=d,writable=on --pidfile /tmp/pid --daemonize; pid=$(cat /tmp/pid); }
early
layer load vmm=/bin/qemu-storage-daemon vmm=/bin/early vmm=/merged/qemu-storage-daemon manager=/bin/busybox-manager \
	trusted=/bin/busybox-trusted trusted=/bin/imgward storage=/bin/busybox-storage || exit 1
layer vmm $pid
attempt rm 'rm $T'
PHASE='descriptor from before stopped'
attempt 'not strict' 'echo x >&7'
PHASE='descriptor from before running'
layer strict
attempt strict 'echo x >&7'
layer lax
exec 7>&- # or the next VM inherits it
stop

PHASE='libraries stopped'
vm file $T
lib=$(sed -n 's|.* \(/.*/libglib[^ ]*\)$|\1|p' /proc/$pid/maps | head -1)
attempt upgrade '[ -n "$lib" ] && cp $lib $lib.new && mv $lib.new $lib && cp /bin/qemu-storage-daemon /bin/q.new && mv /bin/q.new /bin/qemu-storage-daemon'
layer load vmm=/bin/qemu-storage-daemon
PHASE='manager running'
attempt unlink 'busybox-manager rm $T'
attempt 'child unlinks' 'busybox-manager sh -c "/bin/rm $T"'
attempt truncate 'busybox-manager truncate -s 0 $T'
PHASE='manager stopped'
attempt open 'busybox-manager sh -c ": >>$T"'
PHASE='trusted stopped'
attempt truncate 'busybox-trusted truncate -s 2M $T'
stop

PHASE='holder running'
export T
sh -c 'kill -STOP $$; : >$T; cat /pristine >$T' & holder=$!
sleep 1; layer use $T $holder
attempt rm 'rm $T'
attempt write 'echo x >>$T'
PHASE='holder stopped'
attempt 'manager unlinks what it has not open' 'busybox-manager mv $T $T.gone && busybox-manager mv $T.gone $T'
kill -CONT $holder; wait $holder
attempt 'rm when it has ended' 'rm $T'

T=/merged/vm.img; pristine
PHASE='overlay running'
/merged/qemu-storage-daemon --blockdev driver=file,filename=$T,node-name=d --nbd-server addr.type=unix,addr.path=/tmp/nbd \
	--export type=nbd,id=e,node-name=d,writable=on --pidfile /tmp/pid --daemonize; pid=$(cat /tmp/pid)
attempt rm 'rm $T'
attempt 'dd notrunc' 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
attempt upper 'dd if=/dev/zero of=$(ls /up/vm.img /data/up/vm.img 2>/dev/null) bs=4k count=1 conv=notrunc'
PHASE='overlay running read'
attempt read 'cat $T'
stop
PHASE='overlay stopped'
attempt rm 'rm $T'

# The other way round: the VM has the file in the upper directory, and somebody comes by the overlay.
T=/merged/under.img; pristine; sync
U=$(ls /up/under.img /data/up/under.img 2>/dev/null)
vm file $U
PHASE='under an overlay running'
attempt 'dd notrunc' 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
attempt truncate 'truncate -s 0 $T'
attempt 'mv away' 'mv $T $T.new'
attempt rm 'rm $T'
stop
PHASE='under an overlay stopped'
attempt 'dd notrunc' 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
attempt rm 'rm $T'

cp /pristine /images/vm.img
ln /images/vm.img /second-name.img # of which neither the view nor any evidence knows
cd /images
imgward mount /images || exit 1
layer views
T=/images/vm.img; vm file $T
layer use /beside/vm.img $pid
PHASE='beside running'
for T in /beside/vm.img ./vm.img /second-name.img; do
	attempt rm 'rm $T'
	attempt dd 'dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc'
	attempt 'mv away' 'mv $T $T.new'
	attempt truncate 'truncate -s 0 $T'
done
cd /
T=/images/vm.img
PHASE='mounts running'
mounts() {
	attempt umount 'umount /images'
	attempt 'umount -l' 'umount -l /images'
	attempt 'umount -f' 'umount -f /images'
	attempt move 'mount --move /images /mnt'
	attempt cover 'mount -t tmpfs t /images'
	attempt 'cover by a bind mount' 'mount --bind /mnt /images'
}
mounts
PHASE='mounts stopped'
attempt 'bind mount elsewhere' 'mkdir /elsewhere && mount --bind /images /elsewhere && umount /elsewhere'
attempt 'another namespace' 'unshare -m sh -c "umount -l /images"'
stop
attempt 'umount -l' 'umount -l /images'
PHASE='done stopped'
attempt remove 'layer remove && [ -z "$(ls /sys/fs/bpf)" ]'
`)
	t.Log(r.Stdout, r.Stderr)
	if n := judge(t, r.Stdout); n < 35 || r.Exit != 0 {
		t.Errorf("%d cases, exit %d", n, r.Exit)
	}
}

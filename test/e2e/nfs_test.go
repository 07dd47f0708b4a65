// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

// nfsScript serves /export by NFSv4.2 and mounts it twice, as two hosts would: /a by a client in a network namespace of its
// own, and /b. There is no user-space server: what exportfs and mountd would tell the kernel stands in its caches.
const nfsScript = `
set -e
mkfs.ext4 -q /dev/vda; mkdir -p /export /a /b /var/lib/nfs/v4recovery
mount -t ext4 /dev/vda /export
mount -t nfsd nfsd /proc/fs/nfsd
echo '-2 -3 +4 +4.1 +4.2' >/proc/fs/nfsd/versions
echo 10 >/proc/fs/nfsd/nfsv4gracetime; echo 10 >/proc/fs/nfsd/nfsv4leasetime
unshare -nu sleep 1000 & a=$!
sleep 1
/bin/ip link add va type veth peer name vb
/bin/ip link set vb netns $a
/bin/ip addr add 10.0.0.1/24 dev va; /bin/ip link set va up
nsenter -t $a -n -u sh -c 'hostname hosta; /bin/ip link set lo up; /bin/ip addr add 10.0.0.2/24 dev vb; /bin/ip link set vb up'
serve() {
	for client in 10.0.0.1 10.0.0.2 127.0.0.1; do echo "nfsd $client 2147483647 *" >/proc/net/rpc/auth.unix.ip/channel; done
	echo '* /export 2147483647 9234 65534 65534 0' >/proc/net/rpc/nfsd.export/channel
	printf '* 1 \\x00000000 2147483647 /export\n' >/proc/net/rpc/nfsd.fh/channel
	echo 8 >/proc/fs/nfsd/threads
	echo Y >/proc/fs/nfsd/v4_end_grace || :
}
serve
mount -t nfs4 -o addr=127.0.0.1,vers=4.2,clientaddr=127.0.0.1 127.0.0.1:/ /b
nsenter -t $a -n -u mount -t nfs4 -o addr=10.0.0.1,vers=4.2,clientaddr=10.0.0.2 10.0.0.1:/ /a
set +e
`

// TestLocksOfAnotherHost: a VM of host A has an overlay open over NFS; host B's view refuses to destroy it, and what is behind
// it, of which host A has a delegation.
func TestLocksOfAnotherHost(t *testing.T) {
	need.Long(t)
	if harness.Native() {
		return
	}
	disk := t.TempDir() + "/disk.img"
	harness.Run(t, "truncate", "-s", "256M", disk).OK(t)
	r := harness.StockKernel(t).With(harness.Imgward(), "mkfs.ext4", "qemu-img", "qemu-io", "ip", "nsenter", "unshare").Disk(disk).
		Modules("fuse", "ext4", "nfsd", "nfsv4", "veth").Run(nfsScript + `
qemu-img create -q -f qcow2 /a/base.qcow2 8M
qemu-img create -q -f qcow2 -F qcow2 -b base.qcow2 /a/over.qcow2
qemu-img create -q -f qcow2 /a/free.qcow2 8M
(echo 'read 0 64k'; sleep 1000) | qemu-io -f qcow2 /a/over.qcow2 &
sleep 3
imgward mount /b
rm /b/base.qcow2 && echo REMOVED base
imgward who /b/base.qcow2
rm /b/over.qcow2 && echo REMOVED over
dd if=/dev/zero of=/b/over.qcow2 count=1 conv=notrunc && echo WRITTEN over
mv /b/base.qcow2 /b/new && echo TAKEN base
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	imgward status /b >/tmp/status; grep -q base.qcow2 /tmp/status && break; sleep 2
done
cat /tmp/status
rm /b/free.qcow2 && echo REMOVED free
imgward umount /b
`)
	t.Log(r.Stdout, r.Stderr)
	for _, harm := range []string{"REMOVED base", "REMOVED over", "WRITTEN over", "TAKEN base"} {
		if strings.Contains(r.Stdout, harm) {
			t.Errorf("another host's running VM: %s", harm)
		}
	}
	if !strings.Contains(r.Stdout, "REMOVED free") {
		t.Error("an image that nobody has locked is not free")
	}
	if !strings.Contains(r.Stdout, "QEMU on another host, or in a container (its locks are held)") {
		t.Error("who and status do not say whose it is")
	}
	for _, image := range []string{"base.qcow2", "over.qcow2"} {
		if _, status, _ := strings.Cut(r.Stdout, "protected since"); !strings.Contains(status, image) {
			t.Errorf("status does not list %s", image)
		}
	}
}

// TestDeadNFSServer: a running domain's disk lies on an NFS server that has died. All else goes on.
func TestDeadNFSServer(t *testing.T) {
	need.Long(t)
	if harness.Native() {
		return
	}
	disk := t.TempDir() + "/disk.img"
	harness.Run(t, "truncate", "-s", "256M", disk).OK(t)
	r := harness.StockKernel(t).With(harness.Imgward(), "mkfs.ext4", "ip", "nsenter", "unshare").Disk(disk).
		Modules("fuse", "ext4", "nfsd", "nfsv4", "veth").Run(nfsScript + `
mkdir -p /images /run/libvirt/qemu
echo local >/images/local.img; echo free >/images/free.img; echo far >/b/far.img
sleep 1000 & vm=$!
echo "<domstatus state='running' pid='$vm'><domain><name>far</name><devices>
<disk type='file'><source file='/b/far.img'/><target dev='vda'/></disk>
<disk type='file'><source file='/images/local.img'/><target dev='vdb'/></disk></devices></domain></domstatus>" >/run/libvirt/qemu/far.xml
echo 0 >/proc/fs/nfsd/threads
sync -f /images 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches
imgward mount /images
echo new >/images/free.img && echo WRITTEN free
rm /images/local.img && echo REMOVED local
imgward status /images
rm /images/free.img && echo REMOVED free
serve
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	imgward status /images | grep -q 'does not answer' || break; sleep 2
done
imgward status /images | grep -q 'does not answer' || echo ANSWERED
imgward umount /images
`)
	t.Log(r.Stdout, r.Stderr)
	for _, want := range []string{"WRITTEN free", "REMOVED free", "/b/far.img (of domain far) does not answer", "ANSWERED"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(r.Stdout, "REMOVED local") {
		t.Error("an image beside the dead server is not protected")
	}
}

// TestNFSExport: a view is exported. Its clients' file handles lead to the files when the server's kernel has forgotten
// them, and when a successor has taken over; an image in use is refused to them.
func TestNFSExport(t *testing.T) {
	if harness.Native() {
		return
	}
	need.Long(t)
	disk := t.TempDir() + "/disk.img"
	harness.Run(t, "truncate", "-s", "256M", disk).OK(t)
	exported := strings.Replace(nfsScript, "mount -t nfsd", `
mkdir -p /export/dir/below /run/libvirt/qemu
echo disk >/export/dir/used.img; echo free >/export/dir/free.img; echo deep >/export/dir/below/deep
sleep 1000 & vm=$!
echo "<domstatus state='running' pid='$vm'><domain><name>vm</name><devices>
<disk type='file'><source file='/export/dir/used.img'/><target dev='vda'/></disk></devices></domain></domstatus>" >/run/libvirt/qemu/vm.xml
imgward mount /export
mount -t nfsd`, 1)
	r := harness.StockKernel(t).With(harness.Imgward(), "mkfs.ext4", "ip", "nsenter", "unshare").Disk(disk).
		Modules("fuse", "ext4", "nfsd", "nfsv4", "veth").Run(exported + `
forget() { for i in 1 2 3 4 5; do sync; echo 3 >/proc/sys/vm/drop_caches; sleep 0.2; done; }
worker() { imgward status --json /export | sed -n 's/.*"type":"view".*"pid":\([0-9]*\).*/\1/p' | head -1; }
cd /b/dir
cat free.img >/dev/null
forget
cat free.img && echo READ after forgetting
cat below/deep && echo READ below
kill -9 $(worker); forget
cat below/deep free.img && echo READ after the take-over
echo more >>free.img && cat free.img && echo WRITTEN
(cd below; forget; cat deep && mv deep deeper && cat deeper && echo RENAMED)
for client in /a /b; do
	cd $client/dir; forget
	dd if=/dev/zero of=used.img count=1 conv=notrunc,fsync && echo HARM overwritten
	truncate -s 0 used.img && echo HARM truncated
	rm -f used.img && echo HARM removed
	mv used.img taken.img && echo HARM taken
	cat used.img && echo READ used
done
cat /export/dir/used.img
cd /; imgward events /export
rm /b/dir/free.img && echo REMOVED free
umount /a /b; echo 0 >/proc/fs/nfsd/threads
`)
	t.Log(r.Stdout, r.Stderr)
	for _, want := range []string{"READ after forgetting", "READ below", "READ after the take-over", "WRITTEN", "RENAMED", "READ used", "REMOVED free"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(r.Stdout, "HARM") || !strings.Contains(r.Stdout, "\ndisk\n") {
		t.Error("an NFS client harmed an image in use")
	}
	if strings.Contains(r.Stderr, "Stale file handle") {
		t.Error("a client's file handle was stale")
	}
}

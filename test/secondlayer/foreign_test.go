// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// foreign is the one file of a FUSE file system that is no view. It lets the kernel read and write a file of another one, of which
// it has a descriptor for reading: the kernel opens that once more, with the flags of whoever comes.
type foreign struct {
	fs.Inode
	of     *os.File
	server *fuse.Server
}

var (
	_ = fs.NodeOpener(&foreign{})
	_ = fs.NodeGetattrer(&foreign{})
	_ = fs.NodeWriter(&foreign{})
)

func (f *foreign) PassthroughFd() (int, bool) { return int(f.of.Fd()), true }

func (f *foreign) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return f, 0, 0
}

func (f *foreign) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	var st syscall.Stat_t
	err := syscall.Fstat(int(f.of.Fd()), &st)
	out.FromStat(&st)
	return fs.ToErrno(err)
}

// Write is what a kernel without passthrough (before 6.9) asks for.
func (f *foreign) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if f.server.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH != 0 {
		return 0, unix.EIO
	}
	w, err := os.OpenFile(f.of.Name(), os.O_WRONLY, 0)
	if err != nil {
		return 0, fs.ToErrno(err)
	}
	defer w.Close()
	n, err := w.WriteAt(data, off)
	return uint32(n), fs.ToErrno(err)
}

// serveForeign shows a file as DIR/file until that is unmounted.
func serveForeign(dir, path string) error {
	of, err := os.Open(path)
	if err != nil {
		return err
	}
	f, root := &foreign{of: of}, &fs.Inode{}
	f.server, err = fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true},
		OnAdd: func(ctx context.Context) {
			root.AddChild("file", root.NewPersistentInode(ctx, f, fs.StableAttr{}), false)
		},
	})
	if err == nil {
		f.server.Wait()
	}
	return err
}

// TestForeignPassthrough: a file system that lets the kernel write to an image is not believed to have judged, as a view is.
func TestForeignPassthrough(t *testing.T) {
	need.Long(t)
	r := guest(t).Modules("fuse").Run(prelude + `
T=/data/vm.img; pristine
mkdir /foreign
layer foreign /foreign $T &
i=0; until [ -e /foreign/file ]; do i=$((i+1)); [ $i -lt 600 ] || exit 1; sleep 0.1; done
overwrite() { attempt "$1" 'dd if=/dev/zero of=/foreign/file bs=4k count=1 conv=notrunc'; }
layer load vmm=/bin/qemu-storage-daemon || exit 1
PHASE='foreign, before stopped'; overwrite dd
exec 7<>/foreign/file
pristine; vm file $T 7>&-
PHASE='foreign running'; overwrite dd
layer strict
attempt 'descriptor from before' 'echo x >&7'
exec 7>&-
stop
PHASE='foreign stopped'; overwrite dd
umount /foreign
`)
	t.Log(r.Stdout, r.Stderr)
	if n := judge(t, r.Stdout); n != 4 || r.Exit != 0 {
		t.Errorf("%d cases, exit %d", n, r.Exit)
	}
}

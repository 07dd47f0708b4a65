// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/dest"
	"imgward/copy/internal/testfault"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/move"
	"imgward/copy/source"
	"imgward/guard"
)

// laterUsers finds the image idle at first and in use from the second look on: a machine without QEMU's locks was started
// while the copy was under way.
type laterUsers struct {
	testimg.Users
	looks *atomic.Int32
}

func (u laterUsers) InUse(ctx context.Context, f *os.File) ([]guard.Use, error) {
	uses, err := u.Users.InUse(ctx, f)
	if len(uses) == 0 || u.looks.Add(1) == 1 {
		return nil, err
	}
	return uses, err
}

func TestReplacedImageCameIntoUse(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, mib)
	disk := testimg.Write(t, dst+"/vm-disk2.img", "idle when we looked")
	users := laterUsers{testimg.UsedBy(t, disk, true), new(atomic.Int32)}
	_, err := tryCopy(image, disk, func(o *Options) { o.Overwrite, o.Users, o.Locks = dest.Replace, users, testimg.NewLocks(t) })
	if !errors.Is(err, source.ErrInUse) || !strings.Contains(err.Error(), "rhevm") {
		t.Errorf("error %v", err)
	}
	if testimg.Content(t, disk) != "idle when we looked" {
		t.Error("the disk of a machine that runs by now was replaced")
	}
	testimg.OnlyHolds(t, dst, "vm-disk2.img")
}

// TestErrorAtClose: a server may tell what became of writes at close(2) only, and without fsync that is the last chance.
func TestErrorAtClose(t *testing.T) {
	testvol.Root(t)
	for _, errno := range []syscall.Errno{unix.EDQUOT, unix.EIO} {
		for _, way := range []dest.Overwrite{dest.Refuse, dest.InPlace} {
			src, dst := testimg.Dirs(t)
			var f testfault.Faults
			mnt := testfault.Mount(t, dst, &f)
			image := testimg.Dense(t, src+"/image", mib)
			if way == dest.InPlace {
				testimg.Write(t, dst+"/copy", "old")
			}
			f.Again(failFrom("flush", 1, errno))
			_, err := tryCopy(image, mnt+"/copy", func(o *Options) { o.Sync, o.Overwrite = false, way })
			if !errors.Is(err, errno) {
				t.Errorf("%v, overwrite=%q: error %v", errno, way, err)
			}
			if way == dest.Refuse {
				testimg.OnlyHolds(t, dst)
			}
		}
	}
}

// TestPartialOfSomebodyElse: in a directory that others may write to, the hidden name may lead to a file of their choice.
func TestPartialOfSomebodyElse(t *testing.T) {
	for name, plant := range map[string]func(partial, victim string) error{
		"hard link": func(partial, victim string) error { return os.Link(victim, partial) },
		"symlink":   func(partial, victim string) error { return os.Symlink(victim, partial) },
		"pipe":      func(partial, _ string) error { return unix.Mkfifo(partial, 0o600) },
		"other's": func(partial, _ string) error {
			return errors.Join(os.WriteFile(partial, nil, 0o666), os.Chown(partial, 1234, 1234))
		},
	} {
		t.Run(name, func(t *testing.T) {
			testvol.Root(t)
			src, dst := testimg.Dirs(t)
			image := testimg.New(t, src+"/image", 1, mib)
			victim := testimg.Write(t, src+"/victim", "something that matters")
			if err := plant(dst+"/.copy.imgcp-partial", victim); err != nil {
				t.Fatal(err)
			}
			if _, err := tryCopy(image, dst+"/copy", func(o *Options) { o.Resume = true }); err == nil {
				t.Error("it was written to")
			}
			if testimg.Content(t, victim) != "something that matters" {
				t.Error("the victim was changed")
			}
			if Exists(dst + "/copy") {
				t.Error("it took the final name")
			}
		})
	}
}

// TestMountedSource: a device that is mounted changes while it is copied, by the copy itself if that is on it.
func TestMountedSource(t *testing.T) {
	_, dst := testimg.Dirs(t)
	dev := testvol.Device(t, testvol.MinSize)
	dir := testvol.MountDevice(t, "ext4", dev)
	if _, err := tryCopy(dev, dir+"/copy", nil); err == nil || !strings.Contains(err.Error(), "is on a file system on "+dev) {
		t.Errorf("onto itself: error %v", err)
	}
	testimg.OnlyHolds(t, dir)
	var log testimg.Log
	mustCopy(t, dev, dst+"/copy", func(o *Options) { o.Log = log.Logger() })
	if !log.Has("mounted on " + dir) {
		t.Errorf("no warning that it is mounted: %q", log.Lines)
	}
}

// TestReflinkNeedsNoSpace: a clone fits where a copy would not.
func TestReflinkNeedsNoSpace(t *testing.T) {
	dir := testvol.Mount(t, "btrfs", testvol.MinSize)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	image := testimg.Dense(t, dir+"/image", (int64(st.Bavail)*st.Bsize*2/3)&^(mib-1))
	unix.Sync() // btrfs counts what is allocated then
	r := mustCopy(t, image, dir+"/clone", nil)
	if r.Method != move.MethodClone {
		t.Errorf("copied by %s", r.Method)
	}
	if _, err := tryCopy(image, dir+"/copy", func(o *Options) { o.Reflink = Never }); !errors.Is(err, move.ErrNoSpace) {
		t.Errorf("without reflinks: error %v, want ErrNoSpace", err)
	}
	testimg.OnlyHolds(t, dir, "image", "clone")
}

func TestEmptyPipe(t *testing.T) {
	_, dst := testimg.Dirs(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer r.Close()
	stdin := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = stdin }()
	var log testimg.Log
	mustCopy(t, "-", dst+"/copy", func(o *Options) { o.Log = log.Logger() })
	if !log.Has("empty") {
		t.Errorf("no warning that nothing came: %q", log.Lines)
	}
}

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

	"imgward/copy/internal/testvol"
	"imgward/guard"
)

// laterUsers finds the image idle at first and in use from the second look on: a machine without QEMU's locks was started
// while the copy was under way.
type laterUsers struct {
	fakeUsers
	looks *atomic.Int32
}

func (u laterUsers) InUse(ctx context.Context, f *os.File) ([]guard.Use, error) {
	uses, err := u.fakeUsers.InUse(ctx, f)
	if len(uses) == 0 || u.looks.Add(1) == 1 {
		return nil, err
	}
	return uses, err
}

func TestReplacedImageCameIntoUse(t *testing.T) {
	src, dst := dirs(t)
	image := newImage(t, src+"/image", 1, mib)
	disk := write(t, dst+"/vm-disk2.img", "idle when we looked")
	users := laterUsers{usedBy(t, disk, true), new(atomic.Int32)}
	_, err := tryCopy(image, disk, func(o *Options) { o.Overwrite, o.Users, o.Locks = Replace, users, newLocks(t) })
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "rhevm") {
		t.Errorf("error %v", err)
	}
	if content(t, disk) != "idle when we looked" {
		t.Error("the disk of a machine that runs by now was replaced")
	}
	onlyHolds(t, dst, "vm-disk2.img")
}

// TestErrorAtClose: a server may tell what became of writes at close(2) only, and without fsync that is the last chance.
func TestErrorAtClose(t *testing.T) {
	testvol.Root(t)
	for _, errno := range []syscall.Errno{unix.EDQUOT, unix.EIO} {
		for _, way := range []Overwrite{Refuse, InPlace} {
			src, dst := dirs(t)
			var f faults
			mnt := mountFaulty(t, dst, &f)
			image := dense(t, src+"/image", mib)
			if way == InPlace {
				write(t, dst+"/copy", "old")
			}
			f.again(failFrom("flush", 1, errno))
			_, err := tryCopy(image, mnt+"/copy", func(o *Options) { o.Sync, o.Overwrite = false, way })
			if !errors.Is(err, errno) {
				t.Errorf("%v, overwrite=%q: error %v", errno, way, err)
			}
			if way == Refuse {
				onlyHolds(t, dst)
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
			src, dst := dirs(t)
			image := newImage(t, src+"/image", 1, mib)
			victim := write(t, src+"/victim", "something that matters")
			if err := plant(dst+"/.copy.imgcp-partial", victim); err != nil {
				t.Fatal(err)
			}
			if _, err := tryCopy(image, dst+"/copy", func(o *Options) { o.Resume = true }); err == nil {
				t.Error("it was written to")
			}
			if content(t, victim) != "something that matters" {
				t.Error("the victim was changed")
			}
			if exists(dst + "/copy") {
				t.Error("it took the final name")
			}
		})
	}
}

// TestMountedSource: a device that is mounted changes while it is copied, by the copy itself if that is on it.
func TestMountedSource(t *testing.T) {
	_, dst := dirs(t)
	dev := testvol.Device(t, testvol.MinSize)
	dir := testvol.MountDevice(t, "ext4", dev)
	if _, err := tryCopy(dev, dir+"/copy", nil); err == nil || !strings.Contains(err.Error(), "is on "+dev) {
		t.Errorf("onto itself: error %v", err)
	}
	onlyHolds(t, dir)
	var log journalLog
	mustCopy(t, dev, dst+"/copy", func(o *Options) { o.Log = log.logger() })
	if !log.has("mounted on " + dir) {
		t.Errorf("no warning that it is mounted: %q", log.lines)
	}
}

// TestReflinkNeedsNoSpace: a clone fits where a copy would not.
func TestReflinkNeedsNoSpace(t *testing.T) {
	dir := testvol.Mount(t, "btrfs", testvol.MinSize)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	image := dense(t, dir+"/image", (int64(st.Bavail)*st.Bsize*2/3)&^(mib-1))
	unix.Sync() // btrfs counts what is allocated then
	r := mustCopy(t, image, dir+"/clone", nil)
	if r.Method != MethodClone {
		t.Errorf("copied by %s", r.Method)
	}
	if _, err := tryCopy(image, dir+"/copy", func(o *Options) { o.Reflink = Never }); !errors.Is(err, ErrNoSpace) {
		t.Errorf("without reflinks: error %v, want ErrNoSpace", err)
	}
	onlyHolds(t, dir, "image", "clone")
}

func TestEmptyPipe(t *testing.T) {
	_, dst := dirs(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer r.Close()
	stdin := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = stdin }()
	var log journalLog
	mustCopy(t, "-", dst+"/copy", func(o *Options) { o.Log = log.logger() })
	if !log.has("empty") {
		t.Errorf("no warning that nothing came: %q", log.lines)
	}
}

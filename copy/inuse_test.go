// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"imgward/copy/dest"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/move"
	"imgward/copy/source"
	"imgward/guard"
)

func TestDestinationInUse(t *testing.T) {
	for _, way := range []dest.Overwrite{dest.Refuse, dest.Replace, dest.InPlace} {
		src, dst := testimg.Dirs(t)
		image := testimg.New(t, src+"/image", 1, mib)
		disk := testimg.Write(t, dst+"/vm-disk2.img", "the live database")
		users := testimg.UsedBy(t, disk, true)
		_, err := tryCopy(image, disk, func(o *Options) { o.Overwrite, o.Users, o.Locks = way, users, testimg.NewLocks(t) })
		if !errors.Is(err, source.ErrInUse) || strings.Contains(err.Error(), "--overwrite") || !strings.Contains(err.Error(), "vdb of running domain rhevm (pid 1234)") {
			t.Errorf("overwrite=%q: error %v", way, err)
		}
		if testimg.Content(t, disk) != "the live database" {
			t.Errorf("overwrite=%q: it was overwritten", way)
		}
		testimg.OnlyHolds(t, dst, "vm-disk2.img")
	}
}

func TestDestinationLocked(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, mib)
	disk := testimg.Write(t, dst+"/disk", "in use by a QEMU on another host")
	_, err := tryCopy(image, disk, func(o *Options) {
		o.Overwrite, o.Users, o.Locks = dest.Replace, testimg.Users{}, testimg.NewLocks(t, disk)
	})
	if !errors.Is(err, source.ErrInUse) || testimg.Content(t, disk) != "in use by a QEMU on another host" {
		t.Errorf("error %v", err)
	}
}

func TestExceptionPermits(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.Write(t, src+"/image", "new")
	disk := testimg.Write(t, dst+"/disk", "old")
	users := testimg.UsedBy(t, disk, true)
	users.Exception = true
	mustCopy(t, image, disk, func(o *Options) { o.Overwrite, o.Users, o.Locks = dest.InPlace, users, testimg.NewLocks(t, disk) })
	if testimg.Content(t, disk) != "new" {
		t.Error("the exception did not help")
	}
}

func TestSourceInUse(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, mib)
	_, err := tryCopy(image, dst+"/copy", func(o *Options) { o.Users, o.Locks = testimg.UsedBy(t, image, true), testimg.NewLocks(t) })
	if !errors.Is(err, source.ErrInUse) || !strings.Contains(err.Error(), "--live=") {
		t.Errorf("written to by a domain: error %v", err)
	}
	_, err = tryCopy(image, dst+"/copy", func(o *Options) { o.Users, o.Locks = testimg.Users{}, testimg.NewLocks(t, image) })
	if !errors.Is(err, source.ErrInUse) {
		t.Errorf("locked by a writer: error %v", err)
	}
	testimg.OnlyHolds(t, dst)
	mustCopy(t, image, dst+"/copy", func(o *Options) { o.Users, o.Locks = testimg.UsedBy(t, image, false), testimg.NewLocks(t) })
	testimg.Same(t, image, dst+"/copy")
}

// snapshotOf gives a snapshot out that is another file than the image.
type snapshotOf struct {
	path   string
	asked  *source.LiveImage
	closed *bool
}

func (s snapshotOf) Snapshot(_ context.Context, i source.LiveImage) (*source.Snapshot, error) {
	*s.asked = i
	f, err := os.Open(s.path)
	return &source.Snapshot{File: f, Close: func() error { *s.closed = true; return f.Close() }}, err
}

func TestLiveSource(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, mib)
	frozen := testimg.New(t, src+"/frozen", 2, 2*mib)
	var asked source.LiveImage
	var closed bool
	mustCopy(t, image, dst+"/copy", func(o *Options) {
		o.Users, o.Locks, o.Live = testimg.UsedBy(t, image, true), testimg.NewLocks(t), snapshotOf{frozen, &asked, &closed}
	})
	testimg.Same(t, frozen, dst+"/copy")
	if !closed || asked.Path != image || asked.Target != dst+"/copy" || len(asked.Uses) != 1 {
		t.Errorf("closed %v, asked for %+v", closed, asked)
	}
}

// cloned gives a snapshot out that was made in the directory of the copy.
type cloned struct{ content string }

func (c cloned) Snapshot(_ context.Context, i source.LiveImage) (*source.Snapshot, error) {
	path := filepath.Join(filepath.Dir(i.Target), ".clone")
	err := os.WriteFile(path, []byte(c.content), 0o600)
	f, openErr := os.Open(path)
	return &source.Snapshot{File: f, Name: path, Close: func() error { _ = os.Remove(path); return f.Close() }}, errors.Join(err, openErr)
}

// TestSnapshotMayNotBeTheCopy: a clone becomes the copy where that may share blocks with the image.
func TestSnapshotMayNotBeTheCopy(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		rename bool
	}{
		"as it comes": {func(*Options) {}, true},
		"no reflinks": {func(o *Options) { o.Reflink = Never }, false},
		"own blocks":  {func(o *Options) { o.Preallocate = true }, false},
	} {
		src, dst := testimg.Dirs(t)
		image := testimg.New(t, src+"/image", 1, mib)
		r := mustCopy(t, image, dst+"/copy", func(o *Options) {
			o.Users, o.Live = testimg.UsedBy(t, image, true), cloned{testimg.Content(t, image)}
			c.change(o)
		})
		if (r.Method == move.MethodRename) != c.rename {
			t.Errorf("%s: copied by %s", name, r.Method)
		}
		testimg.Same(t, image, dst+"/copy")
		testimg.OnlyHolds(t, dst, "copy")
	}
}

func TestBackingFileWarns(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.Write(t, src+"/image", "new")
	base := testimg.Write(t, dst+"/base", "old")
	users := testimg.Users{Uses: map[uint64][]guard.Use{testimg.Stat(t, base).Ino: {{Domain: "a", Role: guard.RoleBacking, Evidence: guard.EvidenceLibvirt}}}}
	var log testimg.Log
	if _, err := tryCopy(image, base, func(o *Options) { o.Overwrite, o.Users, o.Log = dest.Replace, users, log.Logger() }); !errors.Is(err, source.ErrInUse) {
		t.Errorf("error %v, want ErrInUse", err)
	}
	if !log.Has("backing file") {
		t.Errorf("no word about overlays: %q", log.Lines)
	}
}

// TestIdleOverlayWarns: no machine runs, and yet an overlay would break.
func TestIdleOverlayWarns(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.Write(t, src+"/image", "new")
	base := testimg.Write(t, dst+"/base.img", "old")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.img", dst+"/middle.qcow2", "1M")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "middle.qcow2", dst+"/top.qcow2")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", dst+"/other.qcow2", "1M")
	var log testimg.Log
	mustCopy(t, image, base, func(o *Options) { o.Overwrite, o.Log = dest.Replace, log.Logger() })
	for name, warned := range map[string]bool{"middle.qcow2": true, "top.qcow2": true, "other.qcow2": false} {
		if log.Has(name) != warned {
			t.Errorf("%s: a warning: %v, want %v: %q", name, !warned, warned, log.Lines)
		}
	}
}

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

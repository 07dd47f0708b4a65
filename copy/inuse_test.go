package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/testvol"
	"imgward/guard"
)

// fakeLocks refuses the locks of some inodes.
type fakeLocks struct {
	held           map[uint64]bool
	taken, release *int
}

func (l fakeLocks) take(f *os.File) (func(), error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if l.held[st.Ino] {
		return nil, fmt.Errorf("locked: %w", ErrInUse)
	}
	*l.taken++
	return func() { *l.release++ }, nil
}

func (l fakeLocks) Write(f *os.File) (func(), error) { return l.take(f) }
func (l fakeLocks) Read(f *os.File) (func(), error)  { return l.take(f) }

func newLocks(t *testing.T, held ...string) fakeLocks {
	t.Helper()
	l := fakeLocks{map[uint64]bool{}, new(int), new(int)}
	for _, path := range held {
		l.held[stat(t, path).Ino] = true
	}
	t.Cleanup(func() {
		if *l.taken != *l.release {
			t.Errorf("%d locks were taken, %d given back", *l.taken, *l.release)
		}
	})
	return l
}

func TestDestinationInUse(t *testing.T) {
	for _, way := range []Overwrite{Refuse, Replace, InPlace} {
		src, dst := dirs(t)
		image := newImage(t, src+"/image", 1, mib)
		disk := write(t, dst+"/vm-disk2.img", "the live database")
		users := usedBy(t, disk, true)
		_, err := tryCopy(image, disk, func(o *Options) { o.Overwrite, o.Users, o.Locks = way, users, newLocks(t) })
		want := ErrInUse
		if way == Refuse {
			want = ErrExists
		}
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "vdb of running domain rhevm (pid 1234)") {
			t.Errorf("overwrite=%q: error %v", way, err)
		}
		if content(t, disk) != "the live database" {
			t.Errorf("overwrite=%q: it was overwritten", way)
		}
		onlyHolds(t, dst, "vm-disk2.img")
	}
}

func TestDestinationLocked(t *testing.T) {
	src, dst := dirs(t)
	image := newImage(t, src+"/image", 1, mib)
	disk := write(t, dst+"/disk", "in use by a QEMU on another host")
	_, err := tryCopy(image, disk, func(o *Options) { o.Overwrite, o.Users, o.Locks = Replace, fakeUsers{}, newLocks(t, disk) })
	if !errors.Is(err, ErrInUse) || content(t, disk) != "in use by a QEMU on another host" {
		t.Errorf("error %v", err)
	}
}

func TestExceptionPermits(t *testing.T) {
	src, dst := dirs(t)
	image := write(t, src+"/image", "new")
	disk := write(t, dst+"/disk", "old")
	users := usedBy(t, disk, true)
	users.permitted = true
	mustCopy(t, image, disk, func(o *Options) { o.Overwrite, o.Users, o.Locks = InPlace, users, newLocks(t, disk) })
	if content(t, disk) != "new" {
		t.Error("the exception did not help")
	}
}

func TestSourceInUse(t *testing.T) {
	src, dst := dirs(t)
	image := newImage(t, src+"/image", 1, mib)
	_, err := tryCopy(image, dst+"/copy", func(o *Options) { o.Users, o.Locks = usedBy(t, image, true), newLocks(t) })
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "--live=") {
		t.Errorf("written to by a domain: error %v", err)
	}
	_, err = tryCopy(image, dst+"/copy", func(o *Options) { o.Users, o.Locks = fakeUsers{}, newLocks(t, image) })
	if !errors.Is(err, ErrInUse) {
		t.Errorf("locked by a writer: error %v", err)
	}
	onlyHolds(t, dst)
	mustCopy(t, image, dst+"/copy", func(o *Options) { o.Users, o.Locks = usedBy(t, image, false), newLocks(t) })
	sameBytes(t, image, dst+"/copy")
}

// stillLife gives a snapshot out that is another file than the image.
type stillLife struct {
	path   string
	asked  *LiveImage
	closed *bool
}

func (s stillLife) Snapshot(_ context.Context, i LiveImage) (*Snapshot, error) {
	*s.asked = i
	f, err := os.Open(s.path)
	return &Snapshot{File: f, Close: func() error { *s.closed = true; return f.Close() }}, err
}

func TestLiveSource(t *testing.T) {
	src, dst := dirs(t)
	image := newImage(t, src+"/image", 1, mib)
	frozen := newImage(t, src+"/frozen", 2, 2*mib)
	var asked LiveImage
	var closed bool
	mustCopy(t, image, dst+"/copy", func(o *Options) {
		o.Users, o.Locks, o.Live = usedBy(t, image, true), newLocks(t), stillLife{frozen, &asked, &closed}
	})
	sameBytes(t, frozen, dst+"/copy")
	if !closed || asked.Path != image || asked.Target != dst+"/copy" || len(asked.Uses) != 1 {
		t.Errorf("closed %v, asked for %+v", closed, asked)
	}
}

func TestBackingFileWarns(t *testing.T) {
	src, dst := dirs(t)
	image := write(t, src+"/image", "new")
	base := write(t, dst+"/base", "old")
	users := fakeUsers{uses: map[uint64][]guard.Use{stat(t, base).Ino: {{Domain: "a", Role: guard.RoleBacking, Evidence: guard.EvidenceLibvirt}}}}
	var log journalLog
	if _, err := tryCopy(image, base, func(o *Options) { o.Overwrite, o.Users, o.Log = Replace, users, log.logger() }); !errors.Is(err, ErrInUse) {
		t.Errorf("error %v, want ErrInUse", err)
	}
	if !log.has("backing file") {
		t.Errorf("no word about overlays: %q", log.lines)
	}
}

// TestIdleOverlayWarns: no machine runs, and yet an overlay would break.
func TestIdleOverlayWarns(t *testing.T) {
	src, dst := dirs(t)
	image := write(t, src+"/image", "new")
	base := write(t, dst+"/base.img", "old")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.img", dst+"/middle.qcow2", "1M")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "middle.qcow2", dst+"/top.qcow2")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", dst+"/other.qcow2", "1M")
	var log journalLog
	mustCopy(t, image, base, func(o *Options) { o.Overwrite, o.Log = Replace, log.logger() })
	for name, warned := range map[string]bool{"middle.qcow2": true, "top.qcow2": true, "other.qcow2": false} {
		if log.has(name) != warned {
			t.Errorf("%s: a warning: %v, want %v: %q", name, !warned, warned, log.lines)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
	"imgward/copy/move"
	"imgward/copy/source"
)

// newFile is a new file that gets its name when it is whole. Until then it has none (O_TMPFILE), or a hidden one in
// the same directory where the file system cannot do that, and where a resumed copy must find it again.
type newFile struct {
	dir   *os.File
	name  string // within dir
	temp  string // within dir; "" while unnamed
	f     *os.File
	left  *os.File // what an earlier copy left; nil: nothing, or it is f by now
	perm  os.FileMode
	old   *existing // the file to be replaced; nil for a new name
	whole bool      // temp was made for this copy and holds the whole image already
	opts  *Options
	free  func() // of the locks on f

	silence func() // ends the announcement
}

// NewFile opens the directory and looks at it; nothing is created before prepare.
func NewFile(path string, perm os.FileMode, old *existing, o *Options) (Target, error) {
	if InDev(path) {
		return nil, fmt.Errorf("there is no device %s, and imgcp makes no files in /dev", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open the destination's directory: %w", err)
	}
	t := &newFile{dir: dir, name: filepath.Base(path), perm: perm, old: old, opts: o, free: func() {}}
	if t.silence, err = announce(dir, t.name); err != nil {
		dir.Close()
		return nil, err
	}
	return t, nil
}

// InDev reports whether path is in /dev, where imgcp makes no files; /dev/shm is memory and no place for devices.
func InDev(path string) bool {
	return strings.HasPrefix(path, "/dev/") && !strings.HasPrefix(path, "/dev/shm/")
}

// permOf is the mode of a copy: a file's own, and nobody else's business otherwise.
func permOf(src *source.Source) os.FileMode {
	if src.Kind == source.Regular {
		return os.FileMode(src.Stat.Mode & 0o777)
	}
	return 0o600
}

func (t *newFile) File() *os.File { return t.f }
func (t *newFile) Blank() bool    { return true }
func (t *newFile) path() string   { return filepath.Join(t.dir.Name(), t.name) }

// Earlier finds the file that an earlier copy left. It is not this copy's to remove before Prepare.
func (t *newFile) Earlier() (*os.File, error) {
	if !t.opts.Resume {
		return nil, nil
	}
	f, err := sys.OpenAt(t.dir, t.partial(), unix.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkLeftover(f), t.lock(f)); err != nil {
		f.Close()
		return nil, err
	}
	t.left = f
	return f, nil
}

// Room counts what an earlier copy left as free space.
func (t *newFile) Room(size int64, need func() (int64, error)) error {
	if t.whole {
		return nil
	}
	if t.opts.Preallocate {
		if err := possible(t.path(), size, true); err != nil {
			return err
		}
	}
	var have int64
	if t.left != nil {
		have = move.Allocated(t.left)
	}
	return checkSpace(t.dir, size, need, have)
}

// Prepare creates the file, or takes the one that an earlier copy left, and sets its size.
func (t *newFile) Prepare(size, keep int64) error {
	if t.whole {
		return t.takeAttributes()
	}
	if err := t.open(keep); err != nil {
		return move.OutOfSpace(err)
	}
	if err := t.takeAttributes(); err != nil {
		return err
	}
	return move.OutOfSpace(makeRoom(t.f, size, t.opts.Preallocate))
}

// takeAttributes gives the file the owner and attributes of the one that it replaces.
func (t *newFile) takeAttributes() error {
	if t.old == nil {
		return nil
	}
	return inherit(t.f, t.old.f, t.opts.Log)
}

func (t *newFile) open(keep int64) error {
	switch {
	case !t.opts.Resume:
		return t.create()
	case t.left == nil:
		return t.createAs(t.partial())
	}
	t.f, t.temp, t.left = t.left, t.partial(), nil
	return t.f.Truncate(keep)
}

// partial is the name of a copy that can be resumed, until it is whole.
func (t *newFile) partial() string { return sys.HiddenName(t.name, "partial") }

// checkLeftover makes sure that a file to go on with is one that an earlier copy of this user's left. Where others may write to the
// directory they can put there what they like: a hard link to another file of this user would be overwritten.
func checkLeftover(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("--resume: %s is not a file that an earlier copy of yours left; remove it, or copy without --resume", f.Name())
	}
	return nil
}

// create makes the file, without a name wherever such a file can be given one later.
func (t *newFile) create() (err error) {
	if sys.LinksUnnamed(t.dir) {
		if t.f, err = sys.TempFile(t.dir, t.path(), t.perm); err == nil || !sys.Unsupported(err) {
			return err
		}
	}
	return t.createAs(sys.HiddenName(t.name, ""))
}

func (t *newFile) createAs(temp string) (err error) {
	if t.f, err = sys.CreateAt(t.dir, temp, t.perm); err != nil {
		return err
	}
	t.temp = temp
	return t.lock(t.f)
}

// lock keeps everybody out who finds the file by its hidden name. Nobody finds one without.
func (t *newFile) lock(f *os.File) error {
	if t.opts.Locks == nil {
		return nil
	}
	release, err := t.opts.Locks.Write(f)
	if err == nil {
		t.free = release
	}
	return err
}

func (t *newFile) StatePath() string {
	return filepath.Join(t.dir.Name(), sys.HiddenName(t.name, "state"))
}

func (t *newFile) Scratch(size int64) (*os.File, error) { return scratchFor(t.path(), size) }

// use takes over a file that holds the whole image, if it is on the right file system: one without a name through its
// descriptor, one with a name in the right directory.
func (t *newFile) use(s *source.Snapshot) {
	var f *os.File
	var err error
	switch {
	case s == nil:
		return
	case s.Unnamed:
		f, err = sys.Reopen(s.File, unix.O_RDWR)
	case s.Name != "" && filepath.Dir(s.Name) == t.dir.Name():
		t.temp = filepath.Base(s.Name)
		f, err = sys.OpenAt(t.dir, t.temp, unix.O_RDWR, 0)
	default:
		return
	}
	if err != nil {
		t.opts.Log.Debug("copying what might have been renamed", "file", s.File.Name(), "err", err)
		t.temp = ""
		return
	}
	t.f, t.whole = f, true
	disown(f, t.perm, t.opts.Log)
}

// UseSnapshot makes the snapshot the target's file, if it can be.
func UseSnapshot(t Target, s *source.Snapshot) {
	if t, ok := t.(*newFile); ok {
		t.use(s)
	}
}

// Whole reports whether the target holds the whole image already, for it was made for this copy.
func Whole(t Target) bool {
	n, ok := t.(*newFile)
	return ok && n.whole
}

func (t *newFile) Abandon(resumable bool) {
	if t.temp != "" && (!resumable || t.whole) {
		if err := sys.Unlink(t.dir, t.temp); err != nil {
			t.opts.Log.Warn("an unfinished copy stays behind; remove it", "file", t.temp, "err", err)
		}
	}
	t.free()
	for _, f := range []*os.File{t.f, t.left} {
		if f != nil {
			f.Close()
		}
	}
	if t.old != nil {
		t.old.Close()
	}
	t.dir.Close()
	t.silence()
}

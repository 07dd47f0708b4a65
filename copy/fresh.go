package imgcopy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// fresh is a new file that gets its name when it is whole. Until then it has none (O_TMPFILE), or a hidden one beside
// its own where the file system cannot do that, and where a resumed copy must find it again.
type fresh struct {
	dir    *os.File
	name   string // within dir
	temp   string // within dir; "" while unnamed
	f      *os.File
	perm   os.FileMode
	old    *existing // the file to be replaced; nil for a new name
	adopts bool      // temp was made for this copy and holds the whole image already
	opts   *Options
	free   func() // of the locks on f
}

// newFresh opens the directory and looks at it; nothing is created before prepare.
func newFresh(path string, old *existing, src *source, o *Options) (target, error) {
	if strings.HasPrefix(path, "/dev/") && !strings.HasPrefix(path, "/dev/shm/") {
		return nil, fmt.Errorf("there is no device %s, and imgcp makes no files in /dev", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open the destination's directory: %w", err)
	}
	t := &fresh{dir: dir, name: filepath.Base(path), perm: 0o600, old: old, opts: o, free: func() {}}
	if src.kind == regular {
		t.perm = os.FileMode(src.stat.Mode & 0o777)
	}
	return t, nil
}

func (t *fresh) file() *os.File { return t.f }
func (t *fresh) blank() bool    { return true }
func (t *fresh) path() string   { return filepath.Join(t.dir.Name(), t.name) }

// prepare creates the file, checks the room for it and sets its size.
func (t *fresh) prepare(size int64, need func() (int64, error), resumes func(*os.File) bool) error {
	if t.adopts {
		return t.settle()
	}
	have, err := t.open(resumes)
	if err != nil {
		return outOfSpace(err)
	}
	if err := checkSpace(t.dir, size, need, have); err != nil {
		return err
	}
	if err := t.settle(); err != nil {
		return err
	}
	return outOfSpace(makeRoom(t.f, size, t.opts.Preallocate))
}

// settle gives the file the owner and attributes of the one that it replaces.
func (t *fresh) settle() error {
	if t.old == nil {
		return nil
	}
	return inherit(t.f, t.old.f, t.opts.Log)
}

// open creates the file, or finds the one that an earlier copy left; have is what that one holds.
func (t *fresh) open(resumes func(*os.File) bool) (have int64, err error) {
	if !t.opts.Resume {
		return 0, t.create()
	}
	temp := hiddenName(t.name, "partial")
	t.f, err = sys.OpenAt(t.dir, temp, unix.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, t.createAs(temp)
	}
	if err != nil {
		return 0, err
	}
	if err := ours(t.f); err != nil {
		return 0, err
	}
	if err := t.lock(); err != nil { // before it counts as ours to remove
		return 0, err
	}
	t.temp = temp
	if !resumes(t.f) {
		return 0, t.f.Truncate(0)
	}
	return allocated(t.f), nil
}

// ours makes sure that a file to go on with is one that an earlier copy of this user's left. Where others may write to the
// directory they can put there what they like: a hard link to another file of ours would be overwritten.
func ours(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not what an earlier copy left (a file of yours with one name); remove it", f.Name())
	}
	return nil
}

// create makes the file, without a name wherever such a file can be given one later.
func (t *fresh) create() (err error) {
	if sys.LinksUnnamed(t.dir) {
		if t.f, err = sys.TempFile(t.dir, t.path(), t.perm); err == nil || !sys.Unsupported(err) {
			return err
		}
	}
	return t.createAs(hiddenName(t.name, randomSuffix()))
}

func (t *fresh) createAs(temp string) (err error) {
	if t.f, err = sys.CreateAt(t.dir, temp, t.perm); err != nil {
		return err
	}
	t.temp = temp
	return t.lock()
}

// lock keeps everybody out who finds the file by its hidden name. Nobody finds one without.
func (t *fresh) lock() error {
	if t.opts.Locks == nil {
		return nil
	}
	release, err := t.opts.Locks.Write(t.f)
	if err == nil {
		t.free = release
	}
	return err
}

func (t *fresh) statePath() string { return filepath.Join(t.dir.Name(), hiddenName(t.name, "state")) }

func (t *fresh) scratch() *os.File { return scratchBeside(t.path()) }

// adopt takes over a file that holds the whole image, if it is on the right file system: one without a name through its
// descriptor, one with a name in the right directory.
func (t *fresh) adopt(s *Snapshot) {
	var f *os.File
	var err error
	switch {
	case s == nil:
		return
	case s.Unnamed:
		f, err = sys.Reopen(s.File, unix.O_RDWR)
	case s.Adopt != "" && filepath.Dir(s.Adopt) == t.dir.Name():
		t.temp = filepath.Base(s.Adopt)
		f, err = sys.OpenAt(t.dir, t.temp, unix.O_RDWR, 0)
	default:
		return
	}
	if err != nil {
		t.opts.Log.Debug("copying what might have been adopted", "file", s.File.Name(), "err", err)
		t.temp = ""
		return
	}
	t.f, t.adopts = f, true
	disown(f, t.perm, t.opts.Log)
}

func (t *fresh) abandon(resumable bool) {
	if t.temp != "" && (!resumable || t.adopts) {
		if err := sys.Unlink(t.dir, t.temp); err != nil {
			t.opts.Log.Warn("an unfinished copy stays behind; remove it", "file", t.temp, "err", err)
		}
	}
	t.free()
	if t.f != nil {
		t.f.Close()
	}
	if t.old != nil {
		t.old.close()
	}
	t.dir.Close()
}

package imgcopy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// fresh is a new file that gets its name when it is whole. Until then it has none (O_TMPFILE), or a hidden one beside
// its own where the file system cannot do that, and where a resumed copy must find it again.
type fresh struct {
	dir   *os.File
	name  string // within dir
	temp  string // within dir; "" while unnamed
	f     *os.File
	perm  os.FileMode
	old   *existing // the file to be replaced; nil for a new name
	keep  bool      // leave the temporary file for a later --resume
	opts  *Options
	free  func() // of the locks on f
	ended bool
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
	if src.snapshot != nil && src.snapshot.Adopt != "" && filepath.Dir(src.snapshot.Adopt) == filepath.Dir(path) {
		t.temp = filepath.Base(src.snapshot.Adopt)
	}
	return t, nil
}

func (t *fresh) file() *os.File { return t.f }
func (t *fresh) blank() bool    { return true }

// prepare creates the file, checks the room for it and sets its size.
func (t *fresh) prepare(size int64, need func() (int64, error)) error {
	if err := checkSpace(t.dir, size, need); err != nil {
		return err
	}
	if err := t.create(); err != nil {
		return outOfSpace(err)
	}
	if t.old != nil {
		if err := inherit(t.f, t.old.f, t.opts.Log); err != nil {
			return err
		}
	}
	if t.temp != "" && t.opts.Locks != nil {
		release, err := t.opts.Locks.Write(t.f)
		if err != nil {
			return err
		}
		t.free = release
	}
	return outOfSpace(t.f.Truncate(size))
}

// create makes the file. Without a name it is only where linkat is known to work on such files: a FUSE file system may
// create them and then refuse the link (EXDEV), when the whole copy has been written.
func (t *fresh) create() (err error) {
	if t.old == nil && linksUnnamed(t.dir) {
		if t.f, err = sys.TempFile(t.dir, t.perm); err == nil || !sys.Unsupported(err) {
			return err
		}
	}
	temp := hiddenName(t.name, randomSuffix())
	if t.f, err = sys.CreateAt(t.dir, temp, t.perm); err == nil {
		t.temp = temp
	}
	return err
}

// commit publishes: data first, then the name, then the directory that holds it.
func (t *fresh) commit(sync bool) error {
	if sync {
		if err := t.f.Sync(); err != nil {
			return outOfSpace(err)
		}
	}
	if err := t.publish(); err != nil {
		return err
	}
	t.temp, t.ended = "", true
	if !sync {
		return nil
	}
	if err := t.dir.Sync(); err != nil {
		if t.old == nil { // not certain to be there after a power cut: then rather not now either
			return errors.Join(err, sys.Unlink(t.dir, t.name))
		}
		return err
	}
	return nil
}

func (t *fresh) publish() error {
	var err error
	switch {
	case t.old != nil:
		return outOfSpace(sys.Replace(t.dir, t.temp, t.name))
	case t.temp == "":
		err = sys.LinkNew(t.f, t.dir, t.name)
	default:
		err = sys.RenameNew(t.dir, t.temp, t.name)
	}
	if errors.Is(err, unix.EEXIST) {
		path := filepath.Join(t.dir.Name(), t.name)
		return fmt.Errorf("somebody else created it meanwhile: %w", &ExistsError{Path: path, Next: NextFree(path)})
	}
	return outOfSpace(err)
}

func (t *fresh) abandon() {
	if t.temp != "" && !t.keep {
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

// hiddenName is a name beside name that ls does not show and that says whose it is. Long names are cut to fit NAME_MAX.
func hiddenName(name, suffix string) string {
	const room = 255 - len(".") - len(".imgcp-") - 16
	return "." + name[:min(len(name), room)] + ".imgcp-" + suffix
}

func randomSuffix() string {
	var b [6]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

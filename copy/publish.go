package imgcopy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// commit publishes: data first, then the name, then the directory that holds it.
func (t *fresh) commit(sync bool) error {
	if err := settleData(t.f, sync); err != nil {
		return err
	}
	if err := t.publish(); err != nil {
		return outOfSpace(err)
	}
	t.temp = ""
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

// settleData makes what was written durable, or asks at least whether it went wrong.
func settleData(f *os.File, sync bool) error {
	if sync {
		return outOfSpace(f.Sync())
	}
	return outOfSpace(sys.Flush(f))
}

// publish gives the file its name, in one step that the kernel refuses if the name is taken and nothing is to be
// replaced.
func (t *fresh) publish() error {
	if t.old != nil {
		return t.replace()
	}
	var err error
	if t.temp == "" {
		err = sys.LinkNew(t.f, t.dir, t.name)
	} else {
		err = sys.RenameNew(t.dir, t.temp, t.name)
	}
	if errors.Is(err, unix.EEXIST) {
		path := t.path()
		return fmt.Errorf("somebody else created it meanwhile: %w", &ExistsError{Path: path, Next: NextFree(path)})
	}
	return err
}

// replace needs a name to rename from. It makes sure that what it replaces is still what was locked and looked at, and
// that nobody uses it by now: a machine without QEMU's locks may have been started since.
func (t *fresh) replace() error {
	if err := errors.Join(t.old.still(t.dir, t.name), t.old.idle(context.Background(), t.opts)); err != nil {
		return err
	}
	if t.temp == "" {
		temp := hiddenName(t.name, randomSuffix())
		if err := sys.LinkNew(t.f, t.dir, temp); err != nil {
			return err
		}
		t.temp = temp
	}
	return sys.Replace(t.dir, t.temp, t.name)
}

// still returns an error if name is another file by now. Between this look and the rename is a gap that Linux has no
// call to close; it is microseconds after a copy of minutes.
func (e *existing) still(dir *os.File, name string) error {
	var then, now unix.Stat_t
	if err := unix.Fstat(int(e.f.Fd()), &then); err != nil {
		return &os.PathError{Op: "stat", Path: e.path, Err: err}
	}
	err := unix.Fstatat(int(dir.Fd()), name, &now, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || now.Dev != then.Dev || now.Ino != then.Ino {
		return fmt.Errorf("%s was replaced by somebody else while its copy was written; that one was left as it is", e.path)
	}
	return nil
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

// scratchBeside is a file on the file system of path that nobody else sees.
func scratchBeside(path string) *os.File {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil
	}
	defer dir.Close()
	if f, err := sys.TempFile(dir, path, 0o600); err == nil {
		return f
	}
	temp := hiddenName(filepath.Base(path), randomSuffix())
	f, err := sys.CreateAt(dir, temp, 0o600)
	if err != nil {
		return nil
	}
	_ = sys.Unlink(dir, temp)
	return f
}

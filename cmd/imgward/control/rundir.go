// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
	"golang.org/x/sys/unix"
)

// RunDir is where each view has a directory of its own, named as systemd escapes the mountpoint.
const RunDir = "/run/imgward"

// maxName keeps the paths of sockets under the 108 bytes that an address has room for (unix(7)).
const maxName = 64

// Dir is a view's runtime directory. Only root can enter it. The end of a long name gives way to a hash of it.
func Dir(mountpoint string) string {
	if mountpoint == SecondName {
		return filepath.Join(RunDir, SecondName)
	}
	name := unit.UnitNamePathEscape(mountpoint)
	if len(name) > maxName {
		sum := sha256.Sum256([]byte(name))
		name = name[:maxName-17] + "-" + hex.EncodeToString(sum[:8])
	}
	return filepath.Join(RunDir, name)
}

// mountpointFile, in the runtime directory, holds the mountpoint.
const mountpointFile = "mountpoint"

// deviceFile, in the runtime directory, holds the view's st_dev.
const deviceFile = "device"

// NoteDevice writes down a view's st_dev, by which it is found wherever it is mounted.
func NoteDevice(mountpoint string, dev uint64) error {
	return WriteWhole(filepath.Join(Dir(mountpoint), deviceFile), strconv.FormatUint(dev, 10))
}

// exposedFile, in the runtime directory, holds where the directory below the view is shown read-only.
const exposedFile = "exposed"

// NoteExposed writes down where the directory below a view is shown read-only.
func NoteExposed(mountpoint, dir string) error {
	return WriteWhole(filepath.Join(Dir(mountpoint), exposedFile), dir)
}

// Exposed is where the directory below a view is shown read-only; empty if nowhere.
func Exposed(mountpoint string) string {
	dir, _ := os.ReadFile(filepath.Join(Dir(mountpoint), exposedFile))
	return string(dir)
}

// takenInFile, in the runtime directory, holds the directories of the view on which file systems were mounted that are part
// of it now, each ended by a zero byte.
const takenInFile = "taken-in"

// NoteTakenIn writes down a directory on which a file system was mounted that is part of the view now.
func NoteTakenIn(mountpoint, dir string) error {
	return WriteWhole(filepath.Join(Dir(mountpoint), takenInFile), strings.Join(append(TakenIn(mountpoint), dir), "\x00")+"\x00")
}

// ForgetTakenIn is called when they are mounted where they were, while the view may go on.
func ForgetTakenIn(mountpoint string) { _ = os.Remove(filepath.Join(Dir(mountpoint), takenInFile)) }

// TakenIn lists what NoteTakenIn has written down, in that order.
func TakenIn(mountpoint string) []string {
	text, _ := os.ReadFile(filepath.Join(Dir(mountpoint), takenInFile))
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == 0 })
}

// Socket is a view's control socket.
func Socket(mountpoint string) string { return filepath.Join(Dir(mountpoint), "control.sock") }

// MakeDir makes a view's runtime directory and takes its lock, so that two daemons cannot be started for one view. The
// lock is held until the file is closed; whoever removes the directory holds it still. A daemon whose view has just been
// unmounted is waited for.
func MakeDir(mountpoint string) (*os.File, error) {
	dir := Dir(mountpoint)
	for deadline := time.Now().Add(endWait); ; time.Sleep(10 * time.Millisecond) {
		lock, err := takeLock(dir)
		if err == nil {
			err = WriteWhole(filepath.Join(dir, mountpointFile), mountpoint)
			if err == nil {
				Forget(mountpoint)
				return lock, nil
			}
			lock.Close()
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // the one before has just removed it
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, err
		case time.Now().After(deadline):
			return nil, fmt.Errorf("a daemon for %s is still running (%s is locked): it serves those who hold files of a view that is no longer mounted here; end them first",
				mountpoint, filepath.Join(dir, lockFile))
		}
	}
}

// endWait is how long a daemon may take to end after its view was unmounted: it gives memory back, on a busy machine.
const endWait = 5 * time.Second

// lockFile, in the runtime directory, is locked by the daemon.
const lockFile = "lock"

// takeLock makes the directory and locks it. EWOULDBLOCK: somebody else has. ENOENT: it was removed meanwhile.
func takeLock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		var now, ours os.FileInfo
		ours, err = lock.Stat()
		if err == nil {
			now, err = os.Stat(lock.Name())
		}
		if err == nil && !os.SameFile(now, ours) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// WriteWhole puts a file there at one stroke, for somebody may read it meanwhile. What is there already needs no room, where
// there may be none. The runtime directory is a tmpfs, so nothing is synced.
func WriteWhole(path, text string) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	err := os.WriteFile(path+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = os.Remove(path + ".new")
	}
	return err
}

// ErrStays says that a daemon goes on after its view was unmounted: another mount namespace still shows the view.
var ErrStays = errors.New("the daemon goes on")

// WaitGone waits until a view's daemon has removed its runtime directory, so that the view can be mounted again.
func WaitGone(ctx context.Context, mountpoint string) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if _, err := os.Stat(Dir(mountpoint)); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return ErrStays
}

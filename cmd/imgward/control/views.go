package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	viewfs "imgward/fs"
)

// RunDir is where each view has a directory of its own, named as systemd escapes the mountpoint.
const RunDir = "/run/imgward"

// maxName keeps the paths of sockets under the 108 bytes that an address has room for (unix(7)).
const maxName = 64

// Dir is a view's runtime directory. Only root can enter it. The end of a long name gives way to a hash of it.
func Dir(mountpoint string) string {
	name := unit.UnitNamePathEscape(mountpoint)
	if len(name) > maxName {
		sum := sha256.Sum256([]byte(name))
		name = name[:maxName-17] + "-" + hex.EncodeToString(sum[:8])
	}
	return filepath.Join(RunDir, name)
}

// mountpointFile, in the runtime directory, holds the mountpoint.
const mountpointFile = "mountpoint"

// Socket is a view's control socket.
func Socket(mountpoint string) string { return filepath.Join(Dir(mountpoint), "control.sock") }

// ErrNoView says that a path is not inside any view.
var ErrNoView = errors.New("not inside an imgward view")

// Views lists the mountpoints of the views on this host that have a daemon's runtime directory.
func Views() ([]string, error) {
	entries, err := os.ReadDir(RunDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		name, err := os.ReadFile(filepath.Join(RunDir, e.Name(), mountpointFile))
		if err != nil {
			continue // one is just being made, or removed
		}
		mountpoint := string(name)
		if m, err := viewfs.MountAt(mountpoint); err == nil && m != nil && m.FSType == viewfs.FSType {
			list = append(list, mountpoint)
		}
	}
	return list, nil
}

// Find tells which view a path is in, through whatever mount of it, and where. ErrNoView: it is in none.
func Find(path string) (mountpoint, rel string, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return "", "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", "", err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	if err != nil {
		return "", "", fmt.Errorf("read the mount table: %w", err)
	}
	top := topmost(mounts)
	if top == nil || top.FSType != viewfs.FSType {
		return "", "", fmt.Errorf("%s: %w", path, ErrNoView)
	}
	rel, err = filepath.Rel(top.Mountpoint, path)
	if err != nil {
		return "", "", err
	}
	rel = strings.TrimPrefix(filepath.Join(top.Root, rel), "/")
	views, err := Views()
	if err != nil {
		return "", "", err
	}
	for _, v := range views {
		if m, err := viewfs.MountAt(v); err == nil && m != nil && viewfs.Device(m) == viewfs.Device(top) {
			return v, rel, nil
		}
	}
	return "", "", fmt.Errorf("%s is in a view without a daemon that answers here: %w", path, ErrNoView)
}

// topmost is the mount that a path is on: the longest mountpoint, and of those the last mounted.
func topmost(mounts []*mountinfo.Info) *mountinfo.Info {
	var top *mountinfo.Info
	for _, m := range mounts {
		if top == nil || len(m.Mountpoint) >= len(top.Mountpoint) {
			top = m
		}
	}
	return top
}

// MakeDir makes a view's runtime directory and takes its lock, so that two daemons cannot be started for one view. The
// lock is held until the file is closed.
func MakeDir(mountpoint string) (*os.File, error) {
	dir := Dir(mountpoint)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("a daemon for %s is already running (%s is locked)", mountpoint, lock.Name())
	}
	if err := noteMountpoint(filepath.Join(dir, mountpointFile), mountpoint); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// noteMountpoint writes the file whole: a keeper that adopts a worker does so while others look for the view.
func noteMountpoint(path, mountpoint string) error {
	if err := os.WriteFile(path+".new", []byte(mountpoint), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// ErrStays says that a daemon goes on after its view was unmounted: another mount namespace still shows the view.
var ErrStays = errors.New("the daemon goes on")

// WaitGone waits until a view's daemon has removed its runtime directory, so that the view can be mounted again.
func WaitGone(ctx context.Context, mountpoint string) error {
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
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

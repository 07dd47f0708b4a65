// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	viewfs "imgward/fs"
)

// Mount mounts the view, and returns when it serves; in the foreground, when it has ended.
func (f *Flags) Mount(dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can mount a view: the image directory is root's")
	}
	if f.underSystemd() {
		return f.serveUnderSystemd(dir)
	}
	mountpoint, err := Resolve(dir)
	if err != nil {
		return err
	}
	if joined, err := f.join(mountpoint); joined || err != nil {
		return err
	}
	if slices.Contains(f.Options, remountOption) {
		return f.remount(mountpoint)
	}
	if f.Backing == "" {
		f.Backing = mountpoint
	} else if f.Backing, err = Resolve(f.Backing); err != nil {
		return err
	}
	if err := f.absolutePaths(); err != nil {
		return err
	}
	if err := f.checkTarget(mountpoint); err != nil {
		return err
	}
	if !f.Foreground {
		if mounted, err := f.again(mountpoint); mounted || err != nil {
			return err
		}
	}
	if err := closeInherited(); err != nil {
		return err
	}
	conceal, err := f.expose(mountpoint)
	if err != nil {
		return err
	}
	if f.Foreground {
		defer conceal()
		return f.keep(mountpoint, &origin{covered: f.covered(mountpoint)})
	}
	below, without := f.covered(mountpoint), f.backupsWithout(mountpoint)
	if err := f.daemonise(mountpoint); err != nil {
		conceal()
		return err
	}
	f.guardToo()
	tellBackups(os.Stderr, mountpoint, without)
	tellBystanders(os.Stderr, mountpoint, below)
	return nil
}

// closeInherited closes the descriptors that this process's starter left to it: a lock on one of them would be held for as
// long as the view lives. All that we open ourselves is closed on execve(2), so that those can be told apart.
func closeInherited() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, f := range fds {
		fd, err := strconv.Atoi(f.Name())
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// checkTarget says what stands in the way of the view.
func (f *Flags) checkTarget(mountpoint string) error {
	o, policy, err := f.viewOptions(mountpoint)
	if err != nil {
		return err
	}
	if err := viewfs.CheckTarget(&o); err != nil {
		return err
	}
	return f.checkOutside(mountpoint, policy)
}

// Resolve makes a path absolute and free of symbolic links. A dead mount there is named as one.
func Resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, syscall.ENOTCONN) {
		return "", fmt.Errorf("%s %w (umount -l %s, then try again)", dir, viewfs.ErrStale, dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", dir, syscall.ENOENT)
	}
	return path, err
}

// daemonise starts the keeper and waits until the view serves. Until then the daemon's words come to this terminal.
func (f *Flags) daemonise(mountpoint string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", append([]string{"keeper"}, f.args(mountpoint)...)...)
	cmd.Args[0] = "imgward" // not mount.imgward
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	w.Close()
	answer, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("wait for the daemon: %w", err)
	}
	if string(answer) == readyWord {
		return nil
	}
	_ = cmd.Wait()
	return ErrSaid // the daemon has said why
}

// readyWord is what the keeper writes to its starter once the view serves.
const readyWord = "ready\n"

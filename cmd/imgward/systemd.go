package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
)

// underSystemd says whether a service manager keeps the descriptors (Type=notify, FDSTORE).
func (f *mountFlags) underSystemd() bool { return f.foreground && os.Getenv("NOTIFY_SOCKET") != "" }

// serveUnderSystemd is worker and `imgward mount` in one: the service manager runs the same command line for the first
// worker and for each successor. A successor may not look at the mountpoint, where nobody answers until it serves.
func (f *mountFlags) serveUnderSystemd(dir string) error {
	mountpoint, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if f.backing == "" {
		f.backing = mountpoint
	}
	if err := f.absolutePolicy(); err != nil {
		return err
	}
	if n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS")); n == 0 {
		if !sharesMounts() {
			return fmt.Errorf("%w: nobody would see one that is mounted from here, and `imgward prepare` has left none", errNoView)
		}
		if err := f.checkFirst(mountpoint); err != nil {
			return fmt.Errorf("%w: %w", errNoView, err)
		}
	}
	lock, err := control.MakeDir(mountpoint)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := runWorker(f, mountpoint); err != nil {
		return err // a successor finds there what it needs
	}
	return os.RemoveAll(control.Dir(mountpoint))
}

// checkFirst looks at the mountpoint as `imgward mount` does. A symbolic link is refused, for what a successor is told
// is the same path, and it cannot look where it leads.
func (f *mountFlags) checkFirst(mountpoint string) error {
	for _, dir := range []string{mountpoint, f.backing} {
		real, err := resolve(dir)
		if err != nil {
			return err
		}
		if real != dir {
			return fmt.Errorf("%s is %s by a symbolic link: name that one", dir, real)
		}
	}
	o, _, err := f.viewOptions(mountpoint)
	if err != nil {
		return err
	}
	return viewfs.CheckTarget(&o)
}

// watchdog tells the service manager that the view answers, as often as it wants to know (WATCHDOG_USEC), until it does
// not answer any more: then it is time for a successor. The question is a statfs of the view's own root. It takes the
// way of every request, through the kernel and back; only the kernel looks at the mountpoint, so it waits for nothing
// but this daemon.
func (w *worker) watchdog() {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return
	}
	for range time.Tick(time.Duration(usec) * time.Microsecond / 3) {
		err := w.session.Ping()
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
			w.log.Error("the view's connection is gone", "error", err)
			return
		}
		if err := w.keeper.Notify("WATCHDOG=1"); err != nil {
			w.log.Warn("the service manager does not listen", "error", err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"imgward/cmd/imgward/control"
)

// underSystemd says whether a service manager keeps the descriptors (Type=notify, FDSTORE).
func (f *Flags) underSystemd() bool { return f.Foreground && os.Getenv("NOTIFY_SOCKET") != "" }

// serveUnderSystemd is worker and `imgward mount` in one: the service manager runs the same command line for the first
// worker and for each successor. A successor may not look at the mountpoint, where nobody answers until it serves.
func (f *Flags) serveUnderSystemd(dir string) error {
	mountpoint, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if f.Backing == "" {
		f.Backing = mountpoint
	}
	if err := f.absolutePaths(); err != nil {
		return err
	}
	if n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS")); n == 0 {
		if !sharesMounts() {
			return fmt.Errorf("%w: nobody would see one that is mounted from here, and `imgward prepare` has left none", ErrNoView)
		}
		if err := f.checkFirst(mountpoint); err != nil {
			return fmt.Errorf("%w: %w", ErrNoView, err)
		}
	}
	lock, err := control.MakeDir(mountpoint)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := f.Serve(mountpoint); err != nil {
		return err // a successor finds there what it needs
	}
	return os.RemoveAll(control.Dir(mountpoint))
}

// checkFirst looks at the mountpoint as `imgward mount` does. A symbolic link is refused, for what a successor is told
// is the same path, and it cannot look where it leads.
func (f *Flags) checkFirst(mountpoint string) error {
	for _, dir := range []string{mountpoint, f.Backing} {
		real, err := Resolve(dir)
		if err != nil {
			return err
		}
		if real != dir {
			return fmt.Errorf("%s is %s by a symbolic link: name that one", dir, real)
		}
	}
	return f.checkTarget(mountpoint)
}

// watchdog tells the service manager that the view answers, as often as it wants to know (WATCHDOG_USEC), until it does
// not answer any more (viewfs.Session.Answers): then it is time for a successor.
func (w *worker) watchdog() {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return
	}
	for range time.Tick(time.Duration(usec) * time.Microsecond / 3) {
		if !w.session.Answers() {
			continue
		}
		if err := w.keeper.Notify("WATCHDOG=1"); err != nil {
			w.log.Warn("the service manager does not listen", "error", err)
		}
	}
}

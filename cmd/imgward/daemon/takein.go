// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
	"imgward/fs/mounttable"
	"imgward/guard"
)

// takeInTimeout is how long a file system may take to become part of the view.
const takeInTimeout = 20 * time.Second

// takeIn has another process make the file system on a directory of the view part of it: naming the directory may mean to
// ask this worker for it.
func (w *worker) takeIn(t *mounttable.Table, dir string) error {
	view, m := t.Find(w.session.Dev, w.mountpoint), t.Topmost(dir)
	switch {
	case view == nil || view.Mountpoint != w.mountpoint || !t.Reachable(view):
		return errors.New("the view is not where it was mounted")
	case m == nil:
		return os.ErrNotExist
	}
	if err := viewfs.CouldTakeIn(view, m); err != nil {
		return fmt.Errorf("it cannot become part of the view: %w; umount it, or mount it before the view", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), takeInTimeout)
	defer cancel()
	// As part of the view it could not be unmounted again before the view ends, which waits for the VMs.
	if v, image := w.session.FS.CheckBelow(ctx, strings.TrimPrefix(dir, w.mountpoint+"/"), guard.Process{}); !v.Allowed {
		return fmt.Errorf("it hides %s, which is protected now, and so it does not become part of the view; umount it", image)
	}
	if unit := mountUnit(dir); unit != "" {
		return fmt.Errorf("%s of systemd's mounts it: if it left the mount table, systemd would end that unit and what is bound to it; "+
			"imgward mount %s makes it part of the view all the same, and what is mounted before the view is part of it anyway", unit, dir)
	}
	if w.flags.underSystemd() { // its sandbox is no place to mount in
		return fmt.Errorf("imgward mount %s makes it part of the view", dir)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "take-in", w.mountpoint, dir)
	cmd.ExtraFiles = []*os.File{w.session.Tree}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("it could not become part of the view: %s (%w); umount it, or mount it before the view", strings.TrimSpace(string(out)), err)
	}
	w.forgotten(dir)
	return control.NoteTakenIn(w.mountpoint, dir)
}

func (w *worker) forgotten(dir string) {
	w.session.Forgotten(strings.TrimPrefix(dir, w.mountpoint+"/"))
}

// join makes a file system that stands on a directory of a view part of that view, where its worker could not: its sandbox
// is no place to mount in. False: there is none.
func (f *Flags) join(dir string) (bool, error) {
	t, err := mounttable.Now()
	if err != nil {
		return false, err
	}
	m := t.Topmost(dir)
	if m == nil || m.FSType == viewfs.FSType || !t.Reachable(m) {
		return false, nil
	}
	view := t.Parent(m)
	if view == nil || view.FSType != viewfs.FSType || view.Mountpoint == dir {
		return false, nil
	}
	if err := viewfs.CouldTakeIn(view, m); err != nil {
		return false, fmt.Errorf("%s cannot become part of the view on %s: %w", dir, view.Mountpoint, err)
	}
	p, err := control.Named(view.Mountpoint)
	if err != nil {
		return false, err
	}
	v, err := control.Dial(p.Name).View(context.Background())
	if err != nil {
		return false, err
	}
	path := fmt.Sprintf("/proc/%d/fd/%d", v.PID, v.TreeFD)
	tree, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &os.PathError{Op: "open the backing tree", Path: path, Err: err}
	}
	defer unix.Close(tree)
	if err := viewfs.TakeIn(tree, view.Mountpoint, dir); err != nil {
		return false, fmt.Errorf("%s cannot become part of the view on %s: %w", dir, view.Mountpoint, err)
	}
	fmt.Fprintf(os.Stderr, "imgward: %s is part of the view on %s now, until that ends\n", dir, view.Mountpoint)
	if unit := mountUnit(dir); unit != "" {
		fmt.Fprintf(os.Stderr, "imgward: systemd takes %s for ended; mount it before the view, and it does not\n", unit)
	}
	return true, control.NoteTakenIn(p.Name, dir)
}

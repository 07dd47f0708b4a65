// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"imgward/fs/mounttable"
	"imgward/guard"
)

// FSType is what a view is called in /proc/mounts.
const FSType = "fuse.imgward"

// Host walks host paths for the guard, and where a path leads into the view, through whatever mount of it, goes on in
// the backing tree: the daemon must never wait for its own view. It implements guard.Host.
type Host struct {
	root int    // "/", O_PATH
	tree int    // the backing tree's root, O_PATH
	dev  uint64 // st_dev of the view
	// prepared says that root and info are of the mount namespace that the view was mounted in, which is not this
	// process's own.
	prepared bool

	mounts *mounttable.Reader
}

// NewHost makes a Host. tree is the root of the backing tree, which stays the caller's; dev is the view's device.
func NewHost(tree int, dev uint64) (*Host, error) {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	mounts, err := mounttable.Open()
	if err != nil {
		return nil, err
	}
	return &Host{root: root, tree: tree, dev: dev, mounts: mounts}, nil
}

// Lookup follows path to an inode. It opens only O_PATH descriptors.
func (h *Host) Lookup(name string) (guard.ID, error) {
	fd, _, err := h.walk(name)
	if err != nil {
		return guard.ID{}, &fs.PathError{Op: "lookup", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return guard.ID{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return guard.StatID(&st), nil
}

// Open opens a regular file or block device for reading. EINVAL: it is neither.
func (h *Host) Open(name string) (*os.File, error) {
	fail := func(err error) (*os.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	fd, _, err := h.walk(name)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	f, err := guard.Reopen(fd)
	if err != nil {
		return fail(err)
	}
	return f, nil
}

// InView says whether a path leads into the view.
func (h *Host) InView(name string) bool {
	fd, inView, err := h.walk(name)
	if err == nil {
		unix.Close(fd)
	}
	return inView
}

// OpenDir opens a directory for listing.
func (h *Host) OpenDir(name string) (int, error) {
	fd, _, err := h.walk(name)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return dir, nil
}

// maxLinks is how many symbolic links a path may hold, as for the kernel (MAXSYMLINKS).
const maxLinks = 40

// walk goes along a path, component by component. inView says that it ended in the backing tree.
func (h *Host) walk(name string) (fd int, inView bool, err error) {
	if !path.IsAbs(name) {
		return -1, false, syscall.EINVAL
	}
	w := walker{host: h}
	defer w.close()
	w.reset()
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		comp := rest[0]
		rest = rest[1:]
		target, err := w.step(comp)
		if err != nil {
			return -1, false, err
		}
		if target == "" {
			continue
		}
		if links++; links > maxLinks {
			return -1, false, syscall.ELOOP
		}
		if path.IsAbs(target) {
			w.reset()
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	top := w.stack[len(w.stack)-1]
	fd, err = unix.FcntlInt(uintptr(top.fd), unix.F_DUPFD_CLOEXEC, 0)
	return fd, top.inView, err
}

// walker is the state of one walk: the directories from the root to here.
type walker struct {
	host  *Host
	stack []walked
}

type walked struct {
	fd     int
	name   string
	inView bool
}

func (w *walker) reset() {
	w.close()
	w.stack = append(w.stack[:0], walked{fd: w.host.root, name: "/"})
}

func (w *walker) close() {
	for _, d := range w.stack {
		if d.fd != w.host.root {
			unix.Close(d.fd)
		}
	}
	w.stack = nil
}

// here is the path of the walk so far, free of symbolic links.
func (w *walker) here() string {
	parts := make([]string, len(w.stack))
	for i, d := range w.stack {
		parts[i] = d.name
	}
	return path.Join(parts...)
}

// step takes one component. For a symbolic link it stays and returns the link's target.
func (w *walker) step(comp string) (target string, err error) {
	switch comp {
	case "", ".":
		return "", nil
	case "..":
		if n := len(w.stack); n > 1 {
			unix.Close(w.stack[n-1].fd)
			w.stack = w.stack[:n-1]
		}
		return "", nil
	}
	next, err := w.open(comp)
	if err != nil {
		return "", err
	}
	var st syscall.Stat_t
	if err := fstat(next.fd, &st); err != nil {
		unix.Close(next.fd)
		return "", err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		w.stack = append(w.stack, next)
		return "", nil
	}
	defer unix.Close(next.fd)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(next.fd, "", buf)
	return string(buf[:n]), err
}

// open opens the next component without entering the view: where a mount begins, RESOLVE_NO_XDEV answers EXDEV, and the
// mount table tells whose it is.
func (w *walker) open(comp string) (walked, error) {
	cur := w.stack[len(w.stack)-1]
	if cur.inView {
		fd, err := openPath(cur.fd, comp)
		return walked{fd: fd, name: comp, inView: true}, err
	}
	fd, err := unix.Openat2(cur.fd, comp, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV,
	})
	if err != unix.EXDEV {
		return walked{fd: fd, name: comp}, err
	}
	if sub, ok := w.host.viewAt(path.Join(w.here(), comp)); ok {
		fd, err = w.host.inTree(sub, unix.O_PATH|unix.O_NOFOLLOW)
		return walked{fd: fd, name: comp, inView: true}, err
	}
	fd, err = openPath(cur.fd, comp)
	return walked{fd: fd, name: comp}, err
}

// inTree opens a path relative to the view's root in the backing tree. Symbolic links stay within it.
func (h *Host) inTree(sub string, flags int) (int, error) {
	return unix.Openat2(h.tree, path.Join(".", sub), &unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT,
	})
}

// viewAt says whether the topmost mount on a mount point is the view, and which of its directories it shows.
func (h *Host) viewAt(point string) (sub string, ok bool) {
	t, err := h.mounts.Table()
	if err != nil {
		return "", false
	}
	m := t.Topmost(point)
	if m == nil || m.FSType != FSType || mounttable.Device(m) != h.dev {
		return "", false
	}
	return m.Root, true
}

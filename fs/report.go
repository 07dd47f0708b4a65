// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"context"
	"os"
	"slices"
	"sort"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

// Image is an image in use, as `imgward status` shows it.
type Image struct {
	Path string   // relative to the view; empty with the zero ID
	ID   guard.ID // zero: every image of the view, as far as anybody knows
	Uses []guard.Use
	// Beside are the VMMs that have it open without the view, since before the mount or by another way.
	Beside []int
}

// Stats are figures about a view.
type Stats struct {
	Generation  uint64 // workers so far, the present one included
	Mounted     time.Time
	Serving     time.Time
	LastPause   time.Duration
	Refusals    uint64
	Nodes       int
	Handles     int
	Descriptors int64 // kept open for nodes
	// Passed and Daemon count open files by how their data travels.
	Passed, Daemon int
}

// Stats reads the figures.
func (fs *FS) Stats() Stats {
	var s Stats
	s.Mounted, s.Serving, s.LastPause = fs.region.Times()
	s.Generation, s.Refusals = fs.region.Generation(), fs.region.Refusals()
	s.Nodes, s.Descriptors = fs.nodes.size(), fs.nodes.budget.cached.Load()
	open := fs.handles.openNodes()
	s.Handles = fs.handles.size()
	for _, n := range open {
		a := n.activity()
		a.mu.Lock()
		switch {
		case a.open == nil:
		case a.open.passed:
			s.Passed++
		default:
			s.Daemon++
		}
		a.mu.Unlock()
	}
	return s
}

// Images lists the images of the view that are in use, by path.
func (fs *FS) Images(ctx context.Context) []Image {
	byID := map[guard.ID]*Image{}
	for id, uses := range fs.guard.InUse(ctx) {
		if id.Dev == fs.host.dev {
			continue // a VMM's descriptor of the view: its handle says the same, under the image's own identity
		}
		if path, ok := fs.locate(id, uses); ok || id == (guard.ID{}) {
			byID[id] = &Image{Path: path, ID: id, Uses: uses, Beside: beside(uses)}
		}
	}
	for _, n := range fs.handles.openNodes() {
		path := fs.pathOf(n)
		if uses := fs.quickUses(ctx, n, path); len(uses) > 0 {
			img := &Image{Path: path, ID: n.key, Uses: uses}
			if known := byID[n.key]; known != nil {
				img.Beside = known.Beside
			}
			byID[n.key] = img
		}
	}
	return sorted(byID)
}

// quickUses tells who uses a file that is open through the view, by the cheapest evidence.
func (fs *FS) quickUses(ctx context.Context, n *node, path string) []guard.Use {
	r := fs.requestFor(n.key, path)
	r.Quick = true
	return fs.guard.Who(ctx, r)
}

// Elsewhere lists the images in use that are not in the view; Path is then as the evidence names them, and absolute.
func (fs *FS) Elsewhere(ctx context.Context) []Image {
	byID := map[guard.ID]*Image{}
	for id, uses := range fs.guard.InUse(ctx) {
		if _, ok := fs.locate(id, uses); !ok && id != (guard.ID{}) && id.Dev != fs.host.dev {
			byID[id] = &Image{Path: uses[0].Path, ID: id, Uses: uses}
		}
	}
	return sorted(byID)
}

func sorted(byID map[guard.ID]*Image) []Image {
	list := make([]Image, 0, len(byID))
	for _, img := range byID {
		list = append(list, *img)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Path < list[j].Path })
	return list
}

// beside are the processes among uses that were found by a descriptor of the backing file.
func beside(uses []guard.Use) (pids []int) {
	for _, u := range uses {
		if u.Evidence == guard.EvidenceProcess {
			pids = append(pids, u.PID)
		}
	}
	return pids
}

// locate finds a path in the view of an image that evidence names; false if it is not in the view.
func (fs *FS) locate(id guard.ID, uses []guard.Use) (string, bool) {
	if n := fs.nodes.find(id); n != nil {
		return fs.pathOf(n), true
	}
	for i := range uses {
		if path, ok := fs.inView(&uses[i]); ok {
			return path, true
		}
	}
	return "", false
}

// inView turns the path of a use into one relative to the view; false if it does not lead there, or does not answer.
func (fs *FS) inView(u *guard.Use) (path string, ok bool) {
	if u.Pending {
		return "", false
	}
	found, answered := fs.follow(u.Path)
	return found.path, answered && found.inView
}

// followed is where a host path leads.
type followed struct {
	path   string // relative to the view
	inView bool
	id     guard.ID
}

// follow walks a host path. False: it does not answer.
func (fs *FS) follow(name string) (found followed, answered bool) {
	var f followed
	answered = fs.walks.Do(name, func() {
		fd, inView, err := fs.host.walk(name)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil {
			f = followed{fs.relative(fd), inView, guard.StatID(&st)}
		}
	})
	if !answered {
		return followed{}, false
	}
	return f, true
}

// nameOf is the name below the view by which a host path leads to a node; empty where it does not.
func (fs *FS) nameOf(n *node, path string) string {
	found, answered := fs.follow(path)
	if !answered || !found.inView || found.id != n.key {
		return ""
	}
	return found.path
}

// Who tells who uses an image of the view, by all evidence, the view's own handles included, whatever the policy says.
func (fs *FS) Who(ctx context.Context, id guard.ID, path string) []guard.Use {
	return fs.guard.Who(ctx, fs.requestFor(id, path))
}

// Check asks the guard whether an operation by a process would be allowed. It changes nothing.
func (fs *FS) Check(ctx context.Context, id guard.ID, path string, op guard.Op, by guard.Process) guard.Verdict {
	r := fs.requestFor(id, path)
	r.Op, r.TID, r.UID = op, by.PID, by.UID
	return fs.guard.Check(ctx, r)
}

// requestFor is a question about an image that no request of the kernel's is about. path may be empty.
func (fs *FS) requestFor(id guard.ID, path string) *guard.Request {
	r := &guard.Request{Image: id, Path: func() string { return path }}
	if n := fs.nodes.find(id); n != nil {
		r.Openers = n.openers()
		r.Open, r.Shown = func() (int, error) { return fs.openBeside(n) }, fs.shown(n)
		r.NameOf = func(path string) string { return fs.nameOf(n, path) }
		if path == "" {
			r.Path = func() string { return fs.pathOf(n) }
		}
	} else if path != "" {
		r.Open = func() (int, error) { return fs.host.inTree(path, unix.O_RDONLY|unix.O_NONBLOCK) }
	}
	return r
}

// Found is what a path of the view leads to.
type Found struct {
	ID          guard.ID
	Mode        uint32 // its type alone
	guard.Birth        // of regular files
}

// Resolve finds the inode behind a path relative to the view, symbolic links followed within it.
func (fs *FS) Resolve(path string) (Found, error) {
	fd, err := fs.host.inTree(path, unix.O_PATH)
	if err != nil {
		return Found{}, &os.PathError{Op: "lookup", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Found{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	f := Found{ID: guard.StatID(&st), Mode: st.Mode & syscall.S_IFMT}
	if f.Mode == syscall.S_IFREG {
		f.Birth = guard.BirthOf(fd)
	}
	return f, nil
}

// exists says whether there is a file at a path relative to the view.
func (fs *FS) exists(path string) bool {
	fd, err := fs.host.inTree(path, unix.O_PATH|unix.O_NOFOLLOW)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// Root is the identity of the directory that the view shows.
func (fs *FS) Root() guard.ID {
	n, no := fs.nodes.get(rootID)
	if no != 0 {
		return guard.ID{}
	}
	return n.key
}

// Holder is a process that has files of the view open.
type Holder struct {
	guard.Process
	Path  string
	Write bool
}

// Holders lists who has files of the view open, one entry for each process and file.
func (fs *FS) Holders() []Holder {
	var list []Holder
	for _, n := range fs.handles.openNodes() {
		path := fs.pathOf(n)
		for _, o := range n.openers() {
			p := fs.guard.Classify(o.PID, o.UID)
			if p.Start != o.Start && o.Start != 0 {
				p = o.Process
			}
			list = append(list, Holder{Process: p, Path: path, Write: o.Write})
		}
	}
	return list
}

// PathsOf is where files that a process has open are in the view, whether it has them open through the view or beside it.
func (fs *FS) PathsOf(files []guard.File) []string {
	shown := map[guard.ID]*node{}
	for _, n := range fs.handles.openNodes() {
		shown[fs.shown(n)] = n
	}
	var paths []string
	for _, f := range files {
		n := shown[f.ID]
		if n == nil {
			n = fs.nodes.find(f.ID)
		}
		if n != nil {
			paths = append(paths, fs.pathOf(n))
		} else if found, answered := fs.follow(f.Path); answered && found.inView && found.id == f.ID {
			paths = append(paths, found.path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

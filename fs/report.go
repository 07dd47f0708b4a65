package viewfs

import (
	"context"
	"os"
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
	s.Nodes, s.Descriptors = fs.nodes.size(), fs.nodes.fds.Load()
	open := fs.handles.openNodes()
	s.Handles = fs.handles.size()
	for _, n := range open {
		n.mu.Lock()
		switch {
		case n.open == nil:
		case n.open.backing != 0:
			s.Passed++
		default:
			s.Daemon++
		}
		n.mu.Unlock()
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
			byID[id] = &Image{Path: path, ID: id, Uses: uses}
		}
	}
	for _, n := range fs.handles.openNodes() {
		if uses := fs.Uses(ctx, n.key); len(uses) > 0 {
			byID[n.key] = &Image{Path: fs.pathOf(n), ID: n.key, Uses: uses}
		}
	}
	list := make([]Image, 0, len(byID))
	for _, img := range byID {
		list = append(list, *img)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Path < list[j].Path })
	return list
}

// locate finds a path in the view of an image that evidence names; false if it is not in the view.
func (fs *FS) locate(id guard.ID, uses []guard.Use) (string, bool) {
	if n := fs.nodes.find(id); n != nil {
		return fs.pathOf(n), true
	}
	for _, u := range uses {
		if path, ok := fs.inView(u.Path); ok {
			return path, true
		}
	}
	return "", false
}

// inView turns a host path into one relative to the view; false if it does not lead there.
func (fs *FS) inView(path string) (string, bool) {
	fd, inView, err := fs.host.walk(path)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	return fs.relative(fd), inView
}

// Uses tells who uses an image of the view, by all evidence, the view's own handles included.
func (fs *FS) Uses(ctx context.Context, id guard.ID) []guard.Use {
	v := fs.Check(ctx, id, "", guard.OpTruncate, guard.Process{})
	return v.Uses
}

// Check asks the guard whether an operation by a process would be allowed. It changes nothing.
func (fs *FS) Check(ctx context.Context, id guard.ID, path string, op guard.Op, by guard.Process) guard.Verdict {
	r := &guard.Request{
		Op:    op,
		Image: id,
		TID:   by.PID,
		UID:   by.UID,
		Path:  func() string { return path },
	}
	if n := fs.nodes.find(id); n != nil {
		n.mu.Lock()
		r.Openers = n.openers()
		n.mu.Unlock()
		r.Open = func() (int, error) { return fs.openBeside(n) }
		if path == "" {
			r.Path = func() string { return fs.pathOf(n) }
		}
	} else if path != "" {
		r.Open = func() (int, error) { return fs.host.inTree(path, unix.O_RDONLY|unix.O_NONBLOCK) }
	}
	return fs.guard.Check(ctx, r)
}

// Found is what a path of the view leads to.
type Found struct {
	ID   guard.ID
	Mode uint32    // its type alone
	Born time.Time // see guard.Born; only of regular files
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
		f.Born = guard.Born(fd)
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
		n.mu.Lock()
		openers := n.openers()
		n.mu.Unlock()
		for _, o := range openers {
			p := fs.guard.Classify(o.PID, o.UID)
			if p.Start != o.Start && o.Start != 0 {
				p = o.Process
			}
			list = append(list, Holder{Process: p, Path: path, Write: o.Write})
		}
	}
	return list
}

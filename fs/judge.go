// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/guard"
)

// How long a conflict with handles that are open through the view is waited out: their release may be on its way.
// A VM's start is worth more patience than a destroyer.
const (
	patienceVMM      = 2 * time.Second
	patienceOutsider = 250 * time.Millisecond
)

// victim is an image and what a request would do to it.
type victim struct {
	n    *node
	op   guard.Op
	path func() string // the name that the caller used; nil: any that is known
	seen uint64        // the node's closings before it was judged
	// touches: see guard.Request.
	touches bool
	// whole stands for all images below the directory n: there is a domain of which nothing can be found out, so every
	// image counts as in use.
	whole bool
}

// permit asks the guard about all that a request would do. Allowed, it returns with the nodes locked, so that no VMM
// can open one of them before the deed is done; unlock ends that. Refused, it has told the caller why, and returns the
// errno.
func (fs *FS) permit(cancel <-chan struct{}, in *fuse.InHeader, vs ...victim) (v guard.Verdict, unlock func(), no syscall.Errno) {
	vs = ordered(vs)
	var timer *time.Timer
	for {
		lock(vs)
		r, v, refused := fs.ask(in, vs)
		if refused == nil {
			return v, func() { release(vs) }, 0
		}
		var changed <-chan struct{}
		release(vs)
		// Or a handle went while the guard looked: its locks were seen, and then nobody whose they were.
		if v.MayPass || refused.n.activity().closings.Load() != refused.seen {
			changed = refused.n.changes(refused.seen)
		}
		if changed != nil {
			if timer == nil {
				timer = time.NewTimer(patience(&v))
				defer timer.Stop()
			}
			if await(changed, cancel, timer.C) {
				continue
			}
		}
		return v, nil, fs.refuse(r, &v)
	}
}

// ask judges the victims one by one and stops at the first refusal. Only when all may go ahead are exceptions used up.
func (fs *FS) ask(in *fuse.InHeader, vs []victim) (r *guard.Request, v guard.Verdict, refused *victim) {
	v.Allowed = true
	var spends []func() bool
	for i := range vs {
		if !vs[i].n.regular() && !vs[i].whole {
			continue
		}
		vs[i].seen = vs[i].n.activity().closings.Load()
		r = fs.request(in, &vs[i])
		v = fs.guard.Check(context.Background(), r)
		switch {
		case !v.Allowed:
			return r, v, &vs[i]
		case v.Audit:
			fs.guard.Refused(r, &v) // it would have been
		case v.Spend != nil:
			spends = append(spends, v.Spend)
		}
	}
	for _, spend := range spends {
		if !spend() {
			return fs.ask(in, vs) // somebody else used it up a moment ago
		}
	}
	return r, v, nil
}

// request is the guard's question about a victim.
func (fs *FS) request(in *fuse.InHeader, v *victim) *guard.Request {
	n, path := v.n, v.path
	if path == nil {
		path = func() string { return fs.pathOf(n) }
	}
	dir := sync.OnceValue(func() string { return filepath.Dir(path()) })
	return &guard.Request{
		Op:      v.op,
		Image:   n.key,
		TID:     int(in.Pid),
		UID:     in.Uid,
		Path:    path,
		Exists:  func(name string) bool { return fs.exists(filepath.Join(dir(), name)) },
		Openers: n.openers(),
		Touches: v.touches,
		NameOf:  func(path string) string { return fs.nameOf(n, path) },
		Open:    func() (int, error) { return fs.openBeside(n) },
		Shown:   fs.shown(n),
	}
}

// refuse reports a refusal and returns its errno.
func (fs *FS) refuse(r *guard.Request, v *guard.Verdict) syscall.Errno {
	fs.region.CountRefusal()
	fs.guard.Refused(r, v)
	if v.Errno == 0 {
		return syscall.EBUSY
	}
	return v.Errno
}

func patience(v *guard.Verdict) time.Duration {
	if v.Caller.Class == guard.ClassOutsider {
		return patienceOutsider
	}
	return patienceVMM
}

// await waits until a handle of the node goes. False: it is time to answer.
func await(changed, cancel <-chan struct{}, deadline <-chan time.Time) bool {
	select {
	case <-changed:
		return true
	case <-cancel:
	case <-deadline:
	}
	return false
}

// changes is closed when a handle of the node has gone since it was judged; nil if none is open.
func (n *node) changes(seen uint64) <-chan struct{} {
	a := n.activity()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closings.Load() != seen {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	return n.nextClosing()
}

// nextClosing is closed when the next handle of the node goes; nil if none is open. The node's mu is held.
func (n *node) nextClosing() <-chan struct{} {
	a := n.activity()
	if a.open == nil {
		return nil
	}
	if a.open.changed == nil {
		a.open.changed = make(chan struct{})
	}
	return a.open.changed
}

// ordered orders victims by node id, which is the order in which nodes are locked. A node may be there with several names.
func ordered(vs []victim) []victim {
	if len(vs) < 2 {
		return vs
	}
	vs = slices.Clone(vs)
	slices.SortStableFunc(vs, func(a, b victim) int { return cmp.Compare(a.n.id, b.n.id) })
	return vs
}

func lock(vs []victim) {
	for i := range vs {
		if i == 0 || vs[i].n != vs[i-1].n {
			vs[i].n.activity().deeds.Lock()
		}
	}
}

func release(vs []victim) {
	for i := range vs {
		if i == 0 || vs[i].n != vs[i-1].n {
			vs[i].n.activity().deeds.Unlock()
		}
	}
}

// openBeside opens a node's image for the guard to look at, in the backing tree. O_NONBLOCK: somebody may hold a lease.
func (fs *FS) openBeside(n *node) (int, error) {
	if !n.regular() {
		return -1, syscall.EINVAL
	}
	fd, release, no := fs.nodes.acquire(n)
	if no != 0 {
		return -1, no
	}
	defer release()
	return unix.Openat(fs.procFd, fdName(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
}

// shown is the identity that stat(2) gives a node in the view.
func (fs *FS) shown(n *node) guard.ID {
	return guard.ID{Dev: fs.host.dev, Ino: fs.ino(&syscall.Stat_t{Dev: n.key.Dev, Ino: n.key.Ino})}
}

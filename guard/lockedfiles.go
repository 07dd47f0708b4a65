// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"imgward/guard/chain"
	"imgward/guard/procfs"
	"imgward/guard/qlock"
)

// On storage that several hosts have mounted, the locks are all that shows of a VM on another one. A locked image's header
// names what is behind it, which is in use as well.

// lockedFile is an image that others had locked when it was found.
type lockedFile struct {
	path     string
	id       ID
	writable bool
	behind   map[ID]chain.Link // what its header refers to
}

// lockSearch gathers them during one search.
type lockSearch struct {
	g     *Guard
	ctx   context.Context
	files []lockedFile
}

func (s *lockSearch) found(f *viewFile) {
	if !f.remote {
		return // whoever has it open is a process here
	}
	fd, err := procfs.OpenRetry(func() (int, error) {
		return unix.Openat(f.dirfd, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return
	}
	defer unix.Close(fd)
	held, err := qlock.ProbeFD(fd)
	var st unix.Stat_t
	if err != nil || !held.Any() || unix.Fstat(fd, &st) != nil {
		return
	}
	l := lockedFile{path: f.path, id: StatID(&st), writable: held.Used&qlock.Write != 0, behind: make(map[ID]chain.Link)}
	// Nobody says what format it has. A guest that writes a header into a raw image has more images protected by that, not fewer.
	_ = chain.Walk(s.ctx, func(path string) (*os.File, error) {
		return procfs.OpenRetry(func() (*os.File, error) { return s.g.config.Host.Open(path) })
	}, f.path, "", func(link chain.Link) {
		if id, err := s.g.config.Host.Lookup(link.Path); err == nil {
			l.behind[id] = link
		}
	})
	s.files = append(s.files, l)
}

// still says whether others have the image locked now.
func (l *lockedFile) still(g *Guard) (held bool) {
	answered := g.lookups.Do("locks on "+l.path, func() {
		f, err := procfs.OpenRetry(func() (*os.File, error) { return g.config.Host.Open(l.path) })
		if err != nil {
			return
		}
		defer f.Close()
		h, err := qlock.Probe(f)
		held = err == nil && h.Any()
	})
	return !answered || held
}

// lockedFiles are those that the last search has found.
func (g *Guard) lockedFiles() []lockedFile {
	if s := g.locked.Load(); s != nil {
		return s.files
	}
	return nil
}

// behindLocks says which images that others have locked need this one. A caller that has such an image open itself has
// locked it: qemu-img commit works on both.
func (q *question) behindLocks() []Use {
	if _, write := q.callerOpened(); write {
		return nil
	}
	var uses []Use
	for _, l := range q.g.lockedFiles() {
		link, needs := l.behind[q.Image]
		if !needs || !l.still(q.g) || q.has(l.id) {
			continue
		}
		uses = append(uses, l.use(link))
	}
	return uses
}

// has says whether the caller has a file open, which it may have opened through the view.
func (q *question) has(id ID) bool {
	if q.caller.PID == 0 {
		return false
	}
	shown := ID{Dev: q.Shown.Dev, Ino: id.Ino}
	return q.procs.FS.Holds(q.caller.PID, func(o *procfs.OpenFile) bool {
		return slices.Contains([]ID{id, shown}, fileID(o))
	})
}

func (l *lockedFile) use(link chain.Link) Use {
	return Use{Role: link.Role, Evidence: EvidenceLock, Path: l.path}
}

// addLocked adds what is in use by locks alone.
func (g *Guard) addLocked(all map[ID][]Use) {
	for _, l := range g.lockedFiles() {
		if len(all[l.id]) > 0 || !l.still(g) {
			continue
		}
		all[l.id] = []Use{{Role: RoleUnknown, Writable: l.writable, Evidence: EvidenceLock, Path: l.path}}
		for id, link := range l.behind {
			all[id] = append(all[id], l.use(link))
		}
	}
}

// onFUSE: a daemon there keeps no delegations, and a view of imgward's would take openForLocks for an attempt to write.
func onFUSE(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && uint32(fs.Type) == unix.FUSE_SUPER_MAGIC
}

// openForLocks opens an image again for writing, without truncation, before its locks are looked at: an NFS client with a
// delegation keeps locks to itself, and knows of none that others hold. Opening it for writing ends every delegation, its own
// and the other hosts', and they tell the server of their locks. The descriptor is -1 where that cannot be done.
func openForLocks(fd int) int {
	w, err := unix.Open(procSelfFD(fd), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1
	}
	return w
}

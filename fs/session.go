// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// Names under which the keeper holds a session's descriptors, besides those of handles, locks and mounts.
const (
	keptDevice = "fuse"    // the FUSE connection
	keptTree   = "backing" // the root of the backing tree
	keptState  = "state"   // the state memory
	// keptRequests is the memory that requests are read into.
	keptRequests = "requests"
)

// Session is a view being served.
type Session struct {
	FS   *FS
	Dev  uint64 // st_dev of the view
	Tree *os.File
	loop *loop
	log  *slog.Logger

	mountpoint string
	device     int // the FUSE connection; the server's descriptor
	requests   *state.Requests
	watch      int // a mountinfo file of the host's, or -1
	heartbeat  heartbeat
	question   question
}

// Leave notes that this worker makes room for its successor now.
func (s *Session) Leave() { s.FS.region.NoteLeaving(time.Now()) }

// Died is when the predecessor ended: the keeper's word if it has one, else the predecessor's own. Zero: nobody knows.
func (s *Session) Died(told time.Time) time.Time {
	if told.IsZero() {
		return s.FS.region.Left()
	}
	return told
}

// Serve answers requests until the view is unmounted.
func (s *Session) Serve(died time.Time) {
	pause := s.FS.region.BeginServing(time.Now(), died)
	if g := s.FS.region.Generation(); g > 1 {
		s.log.Info("serving again", "generation", g, "pause", known(pause))
	}
	defer runtime.KeepAlive(collectSeldom())
	go returnMemory(s.FS.ctx)
	go s.beat()
	go s.FS.ensureAll()
	go s.FS.reconcile(s.FS.ctx)
	s.loop.run()
}

func known(pause time.Duration) string {
	if pause == 0 {
		return "unknown"
	}
	return pause.String()
}

// stacked says whether the backing tree is on a file system that is stacked on another, such as an overlay: then the
// kernel has to be told to allow for one more (and nothing can be stacked on the view).
func stacked(tree int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(tree, &st) == nil && (st.Type == unix.OVERLAYFS_SUPER_MAGIC || st.Type == unix.ECRYPTFS_SUPER_MAGIC)
}

// isRemote says whether a file system reports write errors at close(2), as network file systems do.
func isRemote(tree int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(tree, &st) != nil {
		return true
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return false
	}
	return true
}

// RaiseFileLimit lets this process, and what it starts, have as many descriptors as the kernel allows: what a client
// opens, the daemon opens too.
func RaiseFileLimit(log *slog.Logger) uint64 {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 1024
	}
	most := lim.Max
	if b, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
		_, _ = fmt.Sscan(string(b), &most) // else it stays
	}
	want := unix.Rlimit{Cur: most, Max: most}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
		want = unix.Rlimit{Cur: lim.Max, Max: lim.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
			log.Warn("cannot raise the limit of open files", "limit", lim.Cur, "error", err)
			return lim.Cur
		}
	}
	return want.Cur
}

// State is the memory that a successor will read.
func (s *Session) State() *os.File { return s.FS.region.File() }

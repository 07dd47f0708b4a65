// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A worker shows its keeper that it lives, in the shared memory, and from time to time asks the view itself for something,
// through the kernel and back: one that runs but answers nobody is to be replaced as well.
//
// What it asks for touches no file, and no lock under which anything waits for a file, so a backing file system that does
// not answer does not count: requests hang in it with any worker. Neither does one above the mountpoint, through which the
// way to the view leads. Where such requests have taken all memory that large ones are read into, nobody can ask, and the
// worker counts as alive.

// heartbeat is how often a worker shows that it lives and asks whether it answers, and how long an answer may take.
type heartbeat struct{ every, ask, unanswered time.Duration }

func defaultHeartbeat() heartbeat {
	return heartbeat{every: 250 * time.Millisecond, ask: 5 * time.Second, unanswered: 30 * time.Second}
}

// question is one that the view has been asked, since when by a clock that nobody sets; nil: none is under way.
type question struct{ asked atomic.Pointer[time.Time] }

// beat runs until the worker ends.
func (s *Session) beat() {
	go func() {
		for time.Sleep(s.heartbeat.ask); s.FS.ctx.Err() == nil; time.Sleep(s.heartbeat.ask) {
			_ = s.ping() // an error is an answer: the connection is gone, and the loop has seen it
		}
	}()
	for s.FS.ctx.Err() == nil {
		if s.Answers() {
			s.FS.region.Beat()
		}
		time.Sleep(s.heartbeat.every)
	}
}

// Answers says whether the view answers, or cannot be asked.
func (s *Session) Answers() bool {
	asked := s.question.asked.Load()
	return asked == nil || time.Since(*asked) < s.heartbeat.unanswered || !s.requests.Room()
}

// aliveAttr is an attribute that no file has, and no file is asked for.
const aliveAttr = "system.imgward.alive"

// ping asks the view itself for something. ENOTCONN, ECONNABORTED: the connection is gone.
func (s *Session) ping() error {
	at := s.at()
	if at == "" {
		return nil // covered, or gone: nobody can ask
	}
	path := procPath(s.FS.host.root) + at
	// By a mount of its own, where that can be had: who unmounts the view meanwhile does not find it busy.
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	now := time.Now()
	s.question.asked.Store(&now)
	_, err = unix.Getxattr(procPath(fd), aliveAttr, nil)
	s.question.asked.Store(nil)
	if err == unix.ENODATA {
		return nil
	}
	return err
}

// passTables waits for the locks that every request needs.
func (fs *FS) passTables() {
	fs.nodes.mounts.root(0)
	_, _ = fs.nodes.get(rootID)
	fs.nodes.find(fs.Root())
	_, _ = fs.handles.peek(0)
}

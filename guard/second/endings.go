// SPDX-License-Identifier: Apache-2.0

package second

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

// endings waits for the ends of VMMs that use block devices. libvirt removes a status file some time after the process is gone,
// and whoever has ended a domain may want its disk at once.
type endings struct {
	ended   func() // called at each end; it must not block
	watched map[int]*os.File
}

// follow watches those processes that use block devices now, and no others.
func (e *endings) follow(uses map[guard.ID][]guard.Use) {
	wanted := make(map[int]bool)
	for id, list := range uses {
		if id.Dev != guard.BlockDevice {
			continue
		}
		for _, u := range list {
			if u.PID > 0 {
				wanted[u.PID] = true
			}
		}
	}
	for pid, f := range e.watched {
		if !wanted[pid] {
			f.Close()
			delete(e.watched, pid)
		}
	}
	for pid := range wanted {
		if e.watched[pid] == nil {
			e.watch(pid)
		}
	}
}

// watch waits for the end of a process in the runtime's poller, which takes no thread. Before Linux 5.10, which has no
// PIDFD_NONBLOCK, the status file has to do.
func (e *endings) watch(pid int) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			e.ended() // before anybody watched it
		}
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return
	}
	if e.watched == nil {
		e.watched = make(map[int]*os.File)
	}
	e.watched[pid] = f
	go func() {
		if raw.Read(func(fd uintptr) bool { return readable(int(fd)) }) == nil {
			e.ended()
		}
	}()
}

func readable(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}

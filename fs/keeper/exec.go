// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Snapshot is what a keeper tells the program that it becomes: everything it holds stays open across execve(2), so that at
// no moment is there nobody who holds the connection, its children stay its own, and whoever waits for its pid (the
// terminal or supervisor of `mount -f`) sees no end. A second keeper that adopts the worker (Adopt) could give none of that: it
// is for when the first one was killed.
type Snapshot struct {
	Conn   int            `json:"conn"` // the socket, with what waits in it
	Worker snapshotChild  `json:"worker"`
	Names  []string       `json:"names"`
	Files  map[string]int `json:"files"`
	Binary string         `json:"binary"`
}

// snapshotChild is a worker across execve(2).
type snapshotChild struct {
	PID     int    `json:"pid"`
	PidFD   int    `json:"pidfd"`
	End     int    `json:"end"`
	Adopted bool   `json:"adopted"`
	After   string `json:"after"`
	Pulse   bool   `json:"pulse"`
}

// Renew asks our own keeper to become the program that its worker runs. If it cannot, it stays what it is.
func (c *Client) Renew() error { return c.Notify(renewVar + "=1") }

// renew returns only if nothing came of it.
func (k *Keeper) renew() {
	if k.Self == nil || k.fallback || !k.served || k.leaving || k.stopping || k.candidate != nil {
		return
	}
	k.discard(k.standby) // it has nothing yet; the next one takes a moment
	k.standby = nil
	err := k.become()
	k.standbyAt = pastStandby()
	k.Log.Error("the keeper cannot become the new program, and stays as it is", "program", k.Binary, "error", err)
}

// become executes the program that serves, and no other: the path may lead to one by now of which nobody knows whether it
// can.
func (k *Keeper) become() (err error) {
	if same, err := k.goodIsAt(k.Binary); err != nil {
		return err
	} else if !same {
		return errors.New("the path leads to another program than the one that serves")
	}
	s := &Snapshot{
		Conn: k.conn, Names: k.names, Files: make(map[string]int, len(k.files)), Binary: k.Binary,
		Worker: snapshotChild{k.worker.pid, k.worker.pidfd, k.worker.end, k.worker.adopted(), k.worker.after, k.pulse.has},
	}
	for name, f := range k.files {
		s.Files[name] = int(f.Fd())
	}
	file, err := s.write()
	if err != nil {
		return err
	}
	defer file.Close()
	for _, fd := range append(s.descriptors(), int(file.Fd())) {
		defer func() { err = errors.Join(err, closeOnExec(fd, true)) }()
		if err := closeOnExec(fd, false); err != nil {
			return err
		}
	}
	err = unix.Exec(k.Binary, append([]string{os.Args[0]}, k.Self(int(file.Fd()))...), os.Environ())
	return fmt.Errorf("execute %s: %w", k.Binary, err)
}

func (k *Keeper) goodIsAt(path string) (bool, error) {
	if k.good == nil {
		return false, errors.New("the program that serves could not be looked at")
	}
	serves, err := k.good.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(serves, there), err
}

// write puts the snapshot into a file without a name: an environment string has room for a few thousand descriptors only.
func (s *Snapshot) write() (*os.File, error) {
	fd, err := unix.MemfdCreate("snapshot", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "snapshot")
	if err := json.NewEncoder(f).Encode(s); err != nil {
		f.Close()
		return nil, err
	}
	_, err = f.Seek(0, 0)
	return f, err
}

// ReadSnapshot reads the snapshot from the descriptor that Keeper.Self was told of.
func ReadSnapshot(fd int) (*Snapshot, error) {
	f := os.NewFile(uintptr(fd), "snapshot")
	if f == nil {
		return nil, fmt.Errorf("%d is no descriptor", fd)
	}
	defer f.Close()
	s := &Snapshot{}
	if err := json.NewDecoder(f).Decode(s); err != nil {
		return nil, fmt.Errorf("what the keeper before has left cannot be read: %w", err)
	}
	for _, fd := range s.descriptors() {
		if err := closeOnExec(fd, true); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Snapshot) descriptors() []int {
	fds := []int{s.Conn, s.Worker.PidFD}
	if s.Worker.End >= 0 {
		fds = append(fds, s.Worker.End)
	}
	for _, fd := range s.Files {
		fds = append(fds, fd)
	}
	return fds
}

// resume has the keeper go on from a snapshot.
func (k *Keeper) resume(s *Snapshot) {
	k.conn, k.names, k.Binary = s.Conn, s.Names, s.Binary
	for name, fd := range s.Files {
		k.files[name] = os.NewFile(uintptr(fd), name)
	}
	w := &child{pid: s.Worker.PID, pidfd: s.Worker.PidFD, end: s.Worker.End, after: s.Worker.After}
	if !s.Worker.Adopted {
		w.process, _ = os.FindProcess(w.pid) // which never fails on Linux; our child cannot have been reaped
	}
	w.open()
	k.ready = true
	k.take(w)
	k.pulse.has = s.Worker.Pulse
	k.serves()
	k.Log.Info("the keeper goes on as a new program", "program", k.Binary)
}

func closeOnExec(fd int, on bool) error {
	flags := 0
	if on {
		flags = syscall.FD_CLOEXEC
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags); err != nil {
		return fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return nil
}

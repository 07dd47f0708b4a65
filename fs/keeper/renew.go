package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Estate is what a keeper leaves to the program that it becomes: everything it holds stays open across execve(2), so that
// at no moment is there nobody who holds the connection, and its children stay its own.
type Estate struct {
	Conn   int            `json:"conn"` // the socket, with what waits in it
	Worker heir           `json:"worker"`
	Names  []string       `json:"names"`
	Files  map[string]int `json:"files"`
	Binary string         `json:"binary"`
}

// heir is a worker across execve(2).
type heir struct {
	PID     int    `json:"pid"`
	PidFD   int    `json:"pidfd"`
	End     int    `json:"end"`
	Adopted bool   `json:"adopted"`
	After   string `json:"after"`
}

// Renew asks our own keeper to become the program that its worker runs. If it cannot, it stays what it is.
func (c *Client) Renew() error { return c.Notify(renewVar + "=1") }

// renew returns only if nothing came of it.
func (k *Keeper) renew() {
	if k.Self == nil {
		k.Log.Info("a keeper in the foreground stays the program that it is")
		return
	}
	if k.fallback || !k.served || k.leaving || k.stopping || k.candidate != nil {
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
	e := &Estate{
		Conn: k.conn, Names: k.names, Files: make(map[string]int, len(k.files)), Binary: k.Binary,
		Worker: heir{k.worker.pid, k.worker.pidfd, k.worker.end, k.worker.adopted(), k.worker.after},
	}
	for name, f := range k.files {
		e.Files[name] = int(f.Fd())
	}
	will, err := e.write()
	if err != nil {
		return err
	}
	defer will.Close()
	for _, fd := range append(e.descriptors(), int(will.Fd())) {
		defer func() { err = errors.Join(err, closeOnExec(fd, true)) }()
		if err := closeOnExec(fd, false); err != nil {
			return err
		}
	}
	err = unix.Exec(k.Binary, append([]string{os.Args[0]}, k.Self(int(will.Fd()))...), os.Environ())
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

// write puts the estate into a file without a name: an environment string has room for a few thousand descriptors only.
func (e *Estate) write() (*os.File, error) {
	fd, err := unix.MemfdCreate("estate", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "estate")
	if err := json.NewEncoder(f).Encode(e); err != nil {
		f.Close()
		return nil, err
	}
	_, err = f.Seek(0, 0)
	return f, err
}

// Inherited reads the estate from the descriptor that Keeper.Self was told of.
func Inherited(will int) (*Estate, error) {
	f := os.NewFile(uintptr(will), "estate")
	if f == nil {
		return nil, fmt.Errorf("%d is no descriptor", will)
	}
	defer f.Close()
	e := &Estate{}
	if err := json.NewDecoder(f).Decode(e); err != nil {
		return nil, fmt.Errorf("what the keeper before has left cannot be read: %w", err)
	}
	for _, fd := range e.descriptors() {
		if err := closeOnExec(fd, true); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *Estate) descriptors() []int {
	fds := []int{e.Conn, e.Worker.PidFD}
	if e.Worker.End >= 0 {
		fds = append(fds, e.Worker.End)
	}
	for _, fd := range e.Files {
		fds = append(fds, fd)
	}
	return fds
}

// enter has the keeper go on with an estate.
func (k *Keeper) enter(e *Estate) {
	k.conn, k.names, k.Binary = e.Conn, e.Names, e.Binary
	for name, fd := range e.Files {
		k.files[name] = os.NewFile(uintptr(fd), name)
	}
	w := &child{pid: e.Worker.PID, pidfd: e.Worker.PidFD, end: e.Worker.End, after: e.Worker.After}
	if !e.Worker.Adopted {
		w.process, _ = os.FindProcess(w.pid) // which never fails on Linux; our child cannot have been reaped
	}
	w.open()
	k.ready = true
	k.take(w)
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

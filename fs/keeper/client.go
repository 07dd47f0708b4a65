// SPDX-License-Identifier: Apache-2.0

// Package keeper holds descriptors for a worker that may die at any moment, and starts its successor.
//
// The worker speaks sd_notify(3) with FDSTORE to whoever keeps: systemd, where it runs, or Keeper, our own small parent
// process. It sees no difference: Receive gives it its predecessor's descriptors, and Client sends what is to be kept to
// $NOTIFY_SOCKET.
package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of Client.
var (
	ErrNone = errors.New("no keeper: $NOTIFY_SOCKET is not set")
	ErrFull = errors.New("the service manager's descriptor store is full (FileDescriptorStoreMax=)")
)

// Client sends a worker's messages to its keeper. It implements viewfs.Keeper.
//
// A keeper that has stopped reading, or has died, holds nobody up: after a moment what it should keep is put aside, and
// sent when it reads again. Until then the view would not survive its worker's death, which Behind tells.
type Client struct {
	fd    int
	addr  unix.Sockaddr
	limit int // of descriptors; 0: none

	mu    sync.Mutex
	ready bool            // the view serves
	names map[string]bool // with the keeper; nil if there is no limit
	queue []message       // of one name there is one
}

type message struct {
	name string // of the descriptor
	text string
	fd   int // -1: none
}

const (
	// sendTimeout is how long a worker waits for a keeper that does not read.
	sendTimeout = time.Second
	// resendPause is how often it tries again.
	resendPause = 100 * time.Millisecond
	// storeMax is FileDescriptorStoreMax= of our unit, for a systemd that does not tell it (before 254). The successor
	// gets all names in one environment string, for which the kernel allows 128 KiB.
	storeMax = 16384
)

// Connect makes a Client for $NOTIFY_SOCKET. ErrNone: it is not set. systemd says that the service manager keeps, whose
// store is limited.
func Connect(systemd bool) (*Client, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, ErrNone
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	timeout := unix.NsecToTimeval(sendTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("SO_SNDTIMEO: %w", err)
	}
	c := &Client{fd: fd, addr: &unix.SockaddrUnix{Name: path}}
	if systemd {
		c.limit, c.names = storeMax, map[string]bool{}
		if n, err := strconv.Atoi(os.Getenv("FDSTORE")); err == nil && n > 0 && n < storeMax {
			c.limit = n
		}
	}
	return c, nil
}

// NoteKept tells which names the keeper has already.
func (c *Client) NoteKept(kept map[string]int) {
	if c.names == nil {
		return
	}
	for name := range kept {
		c.names[name] = true
	}
}

// Notify sends assignments ("READY=1").
func (c *Client) Notify(lines ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready = c.ready || slices.Contains(lines, "READY=1")
	return sendmsg(c.fd, strings.Join(lines, "\n"), nil, c.addr)
}

// Keep sends a descriptor. A message that has been sent is not lost when its sender dies: the descriptor travels in it.
// ErrFull: there is no room for it.
func (c *Client) Keep(name string, fd int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names != nil && len(c.names) >= c.limit && !c.names[name] {
		return ErrFull
	}
	// FDPOLL=0: systemd would otherwise drop a descriptor that shows an error, as /dev/fuse does when it is idle.
	err := c.send(message{name, "FDSTORE=1\nFDPOLL=0\nFDNAME=" + name, fd})
	if err == nil && c.names != nil {
		c.names[name] = true
	}
	return err
}

// Drop has a descriptor forgotten.
func (c *Client) Drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.names, name)
	_ = c.send(message{name, "FDSTOREREMOVE=1\nFDNAME=" + name, -1})
}

// Barrier waits until all that was sent has been taken in: only while the sender lives can the keeper tell whose it is.
func (c *Client) Barrier() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer unix.Close(p[0])
	err := sendmsg(c.fd, "BARRIER=1", unix.UnixRights(p[1]), c.addr)
	unix.Close(p[1])
	if err != nil {
		return err
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(p[0])}}, barrierTimeout) // ends when the keeper closes its copy
	return err
}

// barrierTimeout is how long a keeper may take to read its messages, in milliseconds.
const barrierTimeout = 5000

// Behind says whether the keeper has not taken what it should keep.
func (c *Client) Behind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue) > 0
}

// send sends a message, or puts it aside; c.mu is held.
func (c *Client) send(m message) error {
	if len(c.queue) > 0 {
		return c.put(m)
	}
	switch err := c.sendNow(m); err {
	case unix.EAGAIN:
		if err := c.put(m); err != nil {
			return err
		}
		go c.catchUp()
		return nil
	case unix.ECONNREFUSED, unix.ENOENT:
		if c.ready {
			return nil // it is dead; the next one is given everything anew (Session.KeepAll)
		}
		return err
	default:
		return err
	}
}

func (c *Client) sendNow(m message) error {
	var rights []byte
	if m.fd >= 0 {
		rights = unix.UnixRights(m.fd)
	}
	return sendmsg(c.fd, m.text, rights, c.addr)
}

// put puts a message aside, in the place of one about the same name, which it makes void; c.mu is held.
func (c *Client) put(m message) (err error) {
	if m.fd >= 0 {
		if m.fd, err = unix.FcntlInt(uintptr(m.fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return err
		}
	}
	if i := slices.IndexFunc(c.queue, func(old message) bool { return old.name == m.name }); i >= 0 {
		c.take(i)
	}
	c.queue = append(c.queue, m)
	return nil
}

func (c *Client) take(i int) {
	if fd := c.queue[i].fd; fd >= 0 {
		unix.Close(fd)
	}
	c.queue = slices.Delete(c.queue, i, i+1)
}

// catchUp sends what was put aside. It holds nobody up: it waits between attempts, not in them.
func (c *Client) catchUp() {
	for {
		time.Sleep(resendPause)
		c.mu.Lock()
		for len(c.queue) > 0 && c.sendAside(c.queue[0]) {
			c.take(0)
		}
		done := len(c.queue) == 0
		c.mu.Unlock()
		if done {
			return
		}
	}
}

// sendAside sends a message without waiting; false: not now.
func (c *Client) sendAside(m message) bool {
	var rights []byte
	if m.fd >= 0 {
		rights = unix.UnixRights(m.fd)
	}
	err := unix.Sendmsg(c.fd, []byte(m.text), rights, c.addr, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	return err != unix.EAGAIN && err != unix.EINTR
}

// Leave tells the keeper that the worker is about to end, and that its successor is to be another program (empty: the
// same).
func (c *Client) Leave(binary string) error {
	return c.Notify(leavingVar+"=1", binaryVar+"="+binary)
}

// Try asks our own keeper to have a program ready to take over: it is started, reads the state, and waits. The error says
// why it could not; then everything is as before.
func (c *Client) Try(binary string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = sendmsg(c.fd, tryVar+"="+binary, unix.UnixRights(int(w.Fd())), c.addr)
	w.Close()
	if err != nil {
		return fmt.Errorf("ask the keeper: %w", err)
	}
	answer, err := io.ReadAll(r)
	switch {
	case err != nil:
		return err
	case len(answer) == 0:
		return errors.New("the keeper does not answer")
	case string(answer) != answerReady:
		return errors.New(strings.TrimSpace(string(answer)))
	}
	return nil
}

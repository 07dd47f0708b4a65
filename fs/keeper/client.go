// Package keeper holds descriptors for a worker that may die at any moment, and starts its successor.
//
// The worker speaks sd_notify(3) with FDSTORE to whoever keeps: systemd, where it runs, or Keeper, our own small parent
// process. It sees no difference: it is given its predecessor's descriptors by sd_listen_fds(3), and sends what is to
// be kept to $NOTIFY_SOCKET.
package keeper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNone says that there is nobody to keep anything: the worker was started by hand.
var ErrNone = errors.New("no keeper: $NOTIFY_SOCKET is not set")

// Client sends a worker's messages to its keeper. It implements viewfs.Keeper.
type Client struct {
	fd   int
	addr unix.Sockaddr
}

// Connect makes a Client for $NOTIFY_SOCKET. ErrNone: it is not set.
func Connect() (*Client, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, ErrNone
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return &Client{fd: fd, addr: &unix.SockaddrUnix{Name: path}}, nil
}

// Notify sends assignments ("READY=1").
func (c *Client) Notify(lines ...string) error {
	return c.send(strings.Join(lines, "\n"), nil)
}

// Keep sends a descriptor. A message that has been sent is not lost when its sender dies: the descriptor travels in it.
func (c *Client) Keep(name string, fd int) error {
	// FDPOLL=0: systemd would otherwise drop a descriptor that shows an error, as /dev/fuse does when it is idle.
	return c.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(fd))
}

// Drop has a descriptor forgotten.
func (c *Client) Drop(name string) {
	_ = c.send("FDSTOREREMOVE=1\nFDNAME="+name, nil)
}

// Barrier waits until all that was sent has been taken in: only while the sender lives can the keeper tell whose it is.
func (c *Client) Barrier() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer unix.Close(p[0])
	err := c.send("BARRIER=1", unix.UnixRights(p[1]))
	unix.Close(p[1])
	if err != nil {
		return err
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(p[0])}}, barrierTimeout) // ends when the keeper closes its copy
	return err
}

// barrierTimeout is how long a keeper may take to read its messages, in milliseconds.
const barrierTimeout = 5000

func (c *Client) send(msg string, rights []byte) error {
	for {
		err := unix.Sendmsg(c.fd, []byte(msg), rights, c.addr, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// firstFd is where passed descriptors begin (SD_LISTEN_FDS_START).
const firstFd = 3

// Kept returns the descriptors that a predecessor left, by name, and takes them out of the environment. Those of one
// name are the same file; the last is returned. They are bare numbers, not os.Files, which the garbage collector would
// close.
func Kept() (map[string]int, error) {
	defer func() {
		for _, name := range []string{"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"} {
			os.Unsetenv(name)
		}
	}()
	count := os.Getenv("LISTEN_FDS")
	if pid := os.Getenv("LISTEN_PID"); count == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS=%q is not a number of descriptors", count)
	}
	if n == 0 {
		return nil, nil
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	if len(names) != n {
		return nil, fmt.Errorf("%d descriptors were passed with %d names", n, len(names))
	}
	kept := make(map[string]int, n)
	for i, name := range names {
		unix.CloseOnExec(firstFd + i)
		kept[name] = firstFd + i
	}
	return kept, nil
}

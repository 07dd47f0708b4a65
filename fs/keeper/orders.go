// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What our own keeper and a process that waits say to each other, through a socket pair: "try" with the state memory,
// answered with "ready" or the reason why not; and "serve COUNT DIED", followed by as many descriptors with their names.
// Unlike an environment, which may be 128 KiB, that has room for any number of them.
const (
	ordersEnv   = "IMGWARD_ORDERS" // the number of the process's end
	orderTry    = "try"
	orderServe  = "serve"
	answerReady = "ready"

	maxRights = 200     // descriptors in a message; the kernel's SCM_MAX_FD is 253
	maxOrder  = 8 << 10 // bytes in a message
)

func order(conn int, msg string, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return sendmsg(conn, msg, rights, nil)
}

func sendmsg(conn int, msg string, rights []byte, to unix.Sockaddr) error {
	for {
		err := unix.Sendmsg(conn, []byte(msg), rights, to, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// answerOf reads what a candidate says; "" if it has ended.
func answerOf(conn int) (string, error) {
	buf := make([]byte, maxOrder)
	n, err := unix.Read(conn, buf)
	return string(buf[:max(n, 0)]), err
}

// await waits for orders. io.EOF: the keeper has no use for this process.
func await(conn int, try func(state *os.File) error) (*Kept, error) {
	for {
		msg, fds, err := receiveOrder(conn)
		if err != nil {
			return nil, err
		}
		word, rest, _ := strings.Cut(msg, " ")
		switch {
		case word == orderTry && len(fds) == 1:
			state := os.NewFile(uintptr(fds[0]), stateName)
			answer := answerReady
			if err := try(state); err != nil {
				answer = err.Error()
			}
			state.Close()
			if err := sendmsg(conn, answer[:min(len(answer), maxOrder)], nil, nil); err != nil {
				return nil, err
			}
		case word == orderServe:
			var count int
			var died int64
			if _, err := fmt.Sscan(rest, &count, &died); err != nil {
				return nil, fmt.Errorf("orders %q: %w", msg, err)
			}
			return receiveAll(conn, count, died)
		default:
			return nil, fmt.Errorf("orders %q: unknown", msg)
		}
	}
}

func receiveAll(conn, count int, died int64) (*Kept, error) {
	l := &Kept{Files: make(map[string]int, count)}
	conn, err := raise(conn, count)
	if err != nil {
		return nil, err
	}
	if died != 0 {
		l.Died = time.Unix(0, died)
	}
	for len(l.Files) < count {
		msg, fds, err := receiveOrder(conn)
		if err != nil {
			return nil, fmt.Errorf("%d of %d descriptors came: %w", len(l.Files), count, err)
		}
		names := strings.Split(msg, ":")
		if len(names) != len(fds) {
			return nil, fmt.Errorf("%d descriptors came with %d names", len(fds), len(names))
		}
		for i, name := range names {
			l.Files[name] = fds[i]
		}
	}
	return l, nil
}

// raise moves the process's end of the socket pair to a number above the descriptors that it is about to get. When a
// process is killed, its files are let go of from the highest number down (task_work_run, Linux 4.3 and later), and an
// inotify descriptor among them takes tens of milliseconds, on a busy machine hundreds. This one tells the keeper that a
// successor is due: it is to be one of the first.
func raise(conn, count int) (int, error) {
	const ours = 256 // what a worker opens for itself when it starts
	high, err := unix.FcntlInt(uintptr(conn), unix.F_DUPFD_CLOEXEC, count+ours)
	if err != nil {
		return -1, fmt.Errorf("move the keeper's socket: %w", err)
	}
	unix.Close(conn)
	return high, nil
}

func receiveOrder(conn int) (msg string, fds []int, err error) {
	buf, oob := make([]byte, maxOrder), make([]byte, unix.CmsgSpace(4*maxRights))
	var n, oobn, flags int
	for {
		n, oobn, flags, _, err = unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("wait for the keeper's orders: %w", err)
	case n == 0:
		return "", nil, io.EOF
	case flags&unix.MSG_CTRUNC != 0:
		return "", nil, errors.New("descriptors were lost on their way: too many open files")
	}
	list, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return "", nil, err
	}
	for i := range list {
		rights, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			return "", nil, err
		}
		fds = append(fds, rights...)
	}
	return string(buf[:n]), fds, nil
}

// ordersFd is the process's end, -1 if it was not started to wait.
func ordersFd() (int, error) {
	value := os.Getenv(ordersEnv)
	if value == "" {
		return -1, nil
	}
	_ = os.Unsetenv(ordersEnv) // fails for no name
	fd, err := strconv.Atoi(value)
	if err != nil {
		return -1, fmt.Errorf("%s=%q is no descriptor", ordersEnv, value)
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

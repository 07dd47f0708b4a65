// SPDX-License-Identifier: Apache-2.0

// Package kaudit writes to the kernel's audit log, which an administrator reads with ausearch(8): netlink(7) messages
// of the types that user programs may send (1100 to 1199, <linux/audit.h>).
package kaudit

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// TrustedApp is AUDIT_TRUSTED_APP: free text of a program that is trusted to tell the truth. The kernel drops it while
// auditing is off (auditctl -e 0, or no auditd), which USER_AVC would not be: that would go to the kernel's own log.
const TrustedApp = 1121

// ErrNone says that this kernel has no audit log, or none that this process may write to: a kernel without
// CONFIG_AUDIT, a process without CAP_AUDIT_WRITE, a container.
var ErrNone = errors.New("no audit log")

// Log is the kernel's audit log. One goroutine at a time.
type Log struct {
	conn conn
	seq  uint32
}

// conn is the netlink socket. send may wait, a minute at most, while auditd is behind (audit_backlog_wait_time).
type conn interface {
	send(msg []byte) error
	// receive gives the answer to what was sent, which is there when send returns. EAGAIN: there is none.
	receive(buf []byte) (int, error)
}

// Socket opens a socket to the audit log. ErrNone: there is none.
func Socket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("%w: %w", ErrNone, err)
	case err != nil:
		return -1, fmt.Errorf("open the audit log: %w", err)
	}
	return fd, nil
}

// New makes a Log of a Socket, which it takes over.
func New(fd int) *Log { return &Log{conn: socket(fd)} }

// Headers of <linux/netlink.h>, in bytes.
const (
	headerSize = 16 // struct nlmsghdr
	errorSize  = 4  // the errno that begins struct nlmsgerr
)

// maxText is the longest text that the kernel takes (MAX_AUDIT_MESSAGE_LENGTH, less its zero).
const maxText = 8969

// Send writes one record; text is fields as Fields makes them. The kernel adds who this process is. ErrNone: this
// process may not, and another try would not help.
func (l *Log) Send(kind uint16, text string) error {
	if len(text) > maxText {
		text = text[:maxText]
	}
	l.seq++
	size := headerSize + len(text) + 1
	msg := binary.NativeEndian.AppendUint32(make([]byte, 0, size+3), uint32(size))
	msg = binary.NativeEndian.AppendUint16(msg, kind)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	msg = binary.NativeEndian.AppendUint32(msg, l.seq)
	msg = binary.NativeEndian.AppendUint32(msg, 0) // the kernel fills in the port
	msg = append(append(msg, text...), 0)
	for len(msg)%4 != 0 {
		msg = append(msg, 0)
	}
	if err := l.conn.send(msg); err != nil {
		return l.failed(err)
	}
	return l.answer()
}

// answer reads the kernel's acknowledgement. Another program's messages to this socket, if any, are passed over.
func (l *Log) answer() error {
	buf := make([]byte, 1024)
	for {
		n, err := l.conn.receive(buf)
		if errors.Is(err, unix.EAGAIN) {
			return nil // it was sent; that is all that is known
		}
		if err != nil {
			return l.failed(err)
		}
		if n < headerSize+errorSize || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(buf[8:]) != l.seq {
			continue
		}
		if errno := -int32(binary.NativeEndian.Uint32(buf[headerSize:])); errno != 0 {
			return l.failed(unix.Errno(errno))
		}
		return nil
	}
}

func (l *Log) failed(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w: %w", ErrNone, err)
	}
	return fmt.Errorf("write to the audit log: %w", err)
}

type socket int

func (s socket) send(msg []byte) error {
	for {
		err := unix.Sendto(int(s), msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (s socket) receive(buf []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(int(s), buf, unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

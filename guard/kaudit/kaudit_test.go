// SPDX-License-Identifier: Apache-2.0

package kaudit

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// wire is a kernel that remembers what it was sent, and answers with an errno.
type wire struct {
	sent  []byte
	errno int32
	queue [][]byte
}

func (w *wire) send(msg []byte) error {
	w.sent = msg
	answer := binary.NativeEndian.AppendUint32(nil, headerSize+errorSize+headerSize)
	answer = binary.NativeEndian.AppendUint16(answer, unix.NLMSG_ERROR)
	answer = append(answer, 0, 0)
	answer = append(answer, msg[8:12]...) // the request's number
	answer = append(answer, 0, 0, 0, 0)
	answer = binary.NativeEndian.AppendUint32(answer, uint32(-w.errno))
	w.queue = append(w.queue, append(answer, msg[:headerSize]...))
	return nil
}

func (w *wire) receive(buf []byte) (int, error) {
	if len(w.queue) == 0 {
		return 0, unix.EAGAIN
	}
	n := copy(buf, w.queue[0])
	w.queue = w.queue[1:]
	return n, nil
}

// What is sent is what <linux/netlink.h> and audit_receive_msg want: a header with the whole length, and text that ends
// with a zero.
func TestWire(t *testing.T) {
	w := &wire{queue: [][]byte{make([]byte, 40)}} // and an answer to something else comes first
	l := &Log{conn: w}
	for i := uint32(1); i <= 2; i++ {
		if err := l.Send(TrustedApp, "op=truncate res=failed"); err != nil {
			t.Fatal(err)
		}
		size := binary.NativeEndian.Uint32(w.sent)
		if int(size) != headerSize+len("op=truncate res=failed")+1 || len(w.sent) < int(size) || len(w.sent)%4 != 0 {
			t.Errorf("length %d in %d bytes", size, len(w.sent))
		}
		if kind := binary.NativeEndian.Uint16(w.sent[4:]); kind != 1121 {
			t.Errorf("type %d", kind)
		}
		if seq := binary.NativeEndian.Uint32(w.sent[8:]); seq != i {
			t.Errorf("sequence %d, want %d", seq, i)
		}
		if text := string(w.sent[headerSize:size]); text != "op=truncate res=failed\x00" {
			t.Errorf("text %q", text)
		}
	}
	if err := l.Send(TrustedApp, strings.Repeat("x", 20000)); err != nil || len(w.sent) > headerSize+maxText+4 {
		t.Errorf("a long text: %v, %d bytes", err, len(w.sent))
	}
}

func TestRefusedByKernel(t *testing.T) {
	for errno, none := range map[unix.Errno]bool{unix.EPERM: true, unix.ECONNREFUSED: true, unix.ENOMEM: false} {
		err := (&Log{conn: &wire{errno: int32(errno)}}).Send(TrustedApp, "x=1")
		if !errors.Is(err, errno) || errors.Is(err, ErrNone) != none {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

func TestFields(t *testing.T) {
	var f Fields
	f.Word("op", "truncate")
	f.Word("opid", 4711)
	f.Name("path", "a/vm.img")
	f.Name("vm", `x" res=success op="`)
	f.Name("ocomm", "a\nb")
	f.Name("exe", "")
	want := `op=truncate opid=4711 path="a/vm.img" vm=7822207265733D73756363657373206F703D22 ocomm=610A62 exe=?`
	if got := f.String(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// The record comes out of the kernel again, where there is an audit log. The type is USER_AVC, for the kernel drops
// others while auditing is off, as it is on a host without auditd.
func TestKernel(t *testing.T) {
	need.Have(t, need.Root, need.Mounting) // a container gets no records out
	fd, err := Socket()
	if errors.Is(err, ErrNone) {
		if _, err := os.Stat("/proc/self/loginuid"); err == nil {
			t.Fatalf("this kernel has an audit log, but: %v", err)
		}
		need.Kernel(t, "audit log (CONFIG_AUDIT)")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	listener, err := Socket()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	const readers = 1 // AUDIT_NLGRP_READLOG, as a bit
	if err := unix.Bind(listener, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: readers}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(listener, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	var f Fields
	f.Word("op", "imgward-test")
	f.Word("time", time.Now().UnixNano())
	const userAVC = 1107
	if err := New(fd).Send(userAVC, f.String()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16<<10)
	for {
		n, _, err := unix.Recvfrom(listener, buf, 0)
		if err != nil {
			t.Fatalf("the record does not come out: %v", err)
		}
		if strings.Contains(string(buf[:n]), f.String()) {
			return
		}
	}
}

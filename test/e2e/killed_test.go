// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

// Procedures of libvirt's protocol (src/remote/remote_protocol.x).
const (
	procSuspend     = 34
	procBackupBegin = 421
)

// killedAfter runs imgcp, and kills it with the signal that cannot be caught as soon as libvirt has done what its guardian asked
// for. It stands between the two, and lets nothing but that answer through any later.
func killedAfter(t *testing.T, procedure uint32, args ...string) {
	t.Helper()
	path := filepath.Join(harness.Sockets, "between.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var killed atomic.Bool
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go between(c.(*net.UnixConn), procedure, &killed)
		}
	}()
	r := harness.Cmd{
		Args: append([]string{harness.Imgcp()}, args...),
		Env:  []string{"LIBVIRT_DEFAULT_URI=qemu:///system?socket=" + path},
	}.Run(t)
	if !killed.Load() || r.Exit != -1 {
		t.Fatalf("imgcp was not killed: exit %d, %s", r.Exit, r.Stderr)
	}
	// The guardian undoes by another connection of its own, which needs the socket for as long.
	harness.Until(t, "the guardian is gone", func() bool { return !hasGuardian() })
}

// between passes packets on. Each begins with its length, program, version, procedure and type (1: an answer).
func between(client *net.UnixConn, procedure uint32, killed *atomic.Bool) {
	defer client.Close()
	server, err := net.Dial("unix", "/run/libvirt/libvirt-sock")
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		io.Copy(server, client)
		server.Close()
	}()
	for {
		head := make([]byte, 20)
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		rest := make([]byte, int(binary.BigEndian.Uint32(head))-len(head))
		if _, err := io.ReadFull(server, rest); err != nil {
			return
		}
		if binary.BigEndian.Uint32(head[12:]) == procedure && binary.BigEndian.Uint32(head[16:]) == 1 && killed.CompareAndSwap(false, true) {
			if imgcp := parentOf(peer(client)); imgcp > 1 {
				syscall.Kill(imgcp, syscall.SIGKILL)
			}
		}
		if _, err := client.Write(append(head, rest...)); err != nil {
			return
		}
	}
}

// peer is the process at the other end: the guardian.
func peer(c *net.UnixConn) (pid int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

func parentOf(pid int) (parent int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	var state string
	fmt.Sscan(rest, &state, &parent)
	return parent
}

func hasGuardian() bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range all {
		if b, _ := os.ReadFile(file); strings.HasPrefix(string(b), harness.Imgcp()+"\x00live-guardian") {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// dialAs connects to a Unix socket as another user. The thread that became him is not used again: it ends with its
// goroutine.
func dialAs(uid int, socket string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		conn, err := connectAs(uid, socket)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

func connectAs(uid int, socket string) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), socket)
	defer f.Close()
	// The directory by a descriptor that root opened: /run/imgward above it keeps everybody out as well.
	dir, err := unix.Open(filepath.Dir(socket), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	address := fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(socket))
	// The system call itself: Go's would change all threads.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return nil, errno
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

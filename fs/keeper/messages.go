// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func (k *Keeper) listen() error {
	_ = os.Remove(k.Socket)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: k.Socket}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("bind %s: %w", k.Socket, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		unix.Close(fd)
		return fmt.Errorf("SO_PASSCRED: %w", err)
	}
	k.conn = fd
	return os.Chmod(k.Socket, 0o600)
}

// drain takes in all messages that have arrived.
func (k *Keeper) drain() {
	for {
		msg, fds, err := receive(k.conn, &k.buf)
		if err != nil {
			return
		}
		k.handle(msg, fds)
	}
}

// buffers are what messages are read into.
type buffers struct {
	text [4096]byte
	oob  [256]byte
}

// receive reads one message and the descriptors in it; a message that is not from root is dropped.
func receive(conn int, b *buffers) (msg string, fds []int, err error) {
	buf, oob := b.text[:], b.oob[:]
	n, oobn, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return "", nil, err
	}
	trusted := false
	list, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return "", nil, nil
	}
	for i := range list {
		if cred, err := unix.ParseUnixCredentials(&list[i]); err == nil {
			trusted = cred.Uid == 0
		} else if rights, err := unix.ParseUnixRights(&list[i]); err == nil {
			fds = append(fds, rights...)
		}
	}
	if !trusted {
		closeAll(fds)
		return "", nil, nil
	}
	return string(buf[:n]), fds, nil
}

// Messages of our own, which systemd ignores.
const (
	leavingVar = "X_IMGWARD_LEAVING" // the worker ends so that a successor can start
	renewVar   = "X_IMGWARD_RENEW"   // the keeper is to become the program that the worker runs
	binaryVar  = "X_IMGWARD_BINARY"  // which is to be this program
	pulseVar   = "X_IMGWARD_PULSE"   // the worker's program has a heartbeat
	tryVar     = "X_IMGWARD_TRY"     // whether this program could; the answer goes to the pipe that comes with it
)

func (k *Keeper) handle(msg string, fds []int) {
	vars := map[string]string{}
	for _, line := range strings.Split(msg, "\n") {
		if name, value, ok := strings.Cut(line, "="); ok {
			vars[name] = value
		}
	}
	name := vars["FDNAME"]
	switch {
	case vars["FDSTORE"] == "1" && len(fds) == 1 && name != "" && !strings.Contains(name, ":"):
		k.keep(name, fds[0])
		fds = nil
	case vars["FDSTOREREMOVE"] == "1":
		k.drop(name)
	case vars[tryVar] != "" && len(fds) == 1:
		k.try(vars[tryVar], os.NewFile(uintptr(fds[0]), "answer"))
		fds = nil
	}
	closeAll(fds)
	if vars[pulseVar] == "1" {
		k.pulse.has = true
	}
	if vars["READY"] == "1" {
		k.serves()
		if !k.ready {
			k.ready = true
			k.Ready()
		}
	}
	if vars["STOPPING"] == "1" {
		k.stopping = true
	}
	if vars[leavingVar] == "1" {
		k.leaving = true
	}
	if vars[renewVar] == "1" {
		k.renew()
	}
	if binary := vars[binaryVar]; binary != "" && binary != k.Binary {
		k.Binary, k.fallback = binary, false
		k.discard(k.standby)
		k.standby = nil
	}
}

func (k *Keeper) keep(name string, fd int) {
	k.drop(name)
	k.files[name] = os.NewFile(uintptr(fd), name)
	k.names = append(k.names, name)
	if k.Kept != nil {
		k.Kept(name, k.files[name])
	}
}

func (k *Keeper) drop(name string) {
	f := k.files[name]
	if f == nil {
		return
	}
	f.Close()
	delete(k.files, name)
	k.names = slices.DeleteFunc(k.names, func(s string) bool { return s == name })
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

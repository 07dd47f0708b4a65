// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"crypto/sha256"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// announce says to every other imgcp of this host that a copy to a new name is under way, for a file without a name shows
// to nobody: two would both work to the end, and one for nothing. It is a socket in the abstract namespace, which is gone
// with its process. Whoever holds the name and is neither root nor this user is not believed.
func announce(dir *os.File, name string) (release func(), err error) {
	nothing := func() {}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, err
	}
	address := &unix.SockaddrUnix{Name: fmt.Sprintf("@imgcp/%x/%x/%x", st.Dev, st.Ino, sha256.Sum256([]byte(name)))}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nothing, nil // a host that forbids it has no other imgcp to warn
	}
	if unix.Bind(fd, address) == nil && unix.Listen(fd, 1) == nil {
		return func() { unix.Close(fd) }, nil
	}
	defer unix.Close(fd)
	other, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nothing, nil
	}
	defer unix.Close(other)
	if unix.Connect(other, address) != nil {
		return nothing, nil // it has ended meanwhile
	}
	peer, err := unix.GetsockoptUcred(other, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return nothing, nil
	}
	return nil, fmt.Errorf("%w: another imgcp (pid %d) is copying to %s now", ErrExists, peer.Pid, name)
}

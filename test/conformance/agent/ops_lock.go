// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// lockOps take, test and drop locks: DESCRIPTOR TYPE START LENGTH for record locks, with TYPE rd, wr or un.
var lockOps = map[string]operation{
	"setlk":    func(c *call) (string, error) { return lock(c, unix.F_SETLK) },
	"setlkw":   func(c *call) (string, error) { return lock(c, unix.F_SETLKW) },
	"getlk":    func(c *call) (string, error) { return lock(c, unix.F_GETLK) },
	"ofdlk":    func(c *call) (string, error) { return lock(c, unix.F_OFD_SETLK) },
	"ofdlkw":   func(c *call) (string, error) { return lock(c, unix.F_OFD_SETLKW) },
	"getofdlk": func(c *call) (string, error) { return lock(c, unix.F_OFD_GETLK) },
	"flock":    func(c *call) (string, error) { return "", unix.Flock(c.fd(), c.flags()) },
}

var lockTypes = map[string]int16{"rd": unix.F_RDLCK, "wr": unix.F_WRLCK, "un": unix.F_UNLCK}

// lock runs one fcntl. A query prints "un", or the type, start, length and owner of the lock in the way; the runner
// replaces a process id that it knows by that agent's name.
func lock(c *call, command int) (string, error) {
	fd, kind := c.fd(), c.str()
	typ, ok := lockTypes[kind]
	if !ok {
		panic(badCall("a lock is rd, wr or un"))
	}
	l := unix.Flock_t{Type: typ, Start: c.num(), Len: c.num()}
	if err := unix.FcntlFlock(uintptr(fd), command, &l); err != nil {
		return "", err
	}
	if command != unix.F_GETLK && command != unix.F_OFD_GETLK {
		return "", nil
	}
	if l.Type == unix.F_UNLCK {
		return "un", nil
	}
	for name, t := range lockTypes {
		if t == l.Type {
			kind = name
		}
	}
	return fmt.Sprintf("%s %d %d pid:%d", kind, l.Start, l.Len, l.Pid), nil
}

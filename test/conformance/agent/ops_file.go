// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// fileOps work on open files.
var fileOps = map[string]operation{
	"open":   opOpen,
	"openat": opOpenat,
	"reopen": func(c *call) (string, error) {
		return c.keep(unix.Open(procPath(c.fd()), c.flags()|unix.O_CLOEXEC, 0))
	},
	"read": func(c *call) (string, error) {
		return readSome(c, func(fd int, b []byte) (int, error) { return unix.Read(fd, b) })
	},
	"pread": func(c *call) (string, error) {
		return readSome(c, func(fd int, b []byte) (int, error) { return unix.Pread(fd, b, c.num()) })
	},
	// readsize prints how many bytes a pread brings: DESCRIPTOR LENGTH OFFSET.
	"readsize": func(c *call) (string, error) { return count(unix.Pread(c.fd(), aligned(c.int()), c.num())) },
	"put":      func(c *call) (string, error) { return count(unix.Write(c.fd(), []byte(c.str()))) },
	"pput":     func(c *call) (string, error) { return count(unix.Pwrite(c.fd(), []byte(c.str()), c.num())) },
	"fill":     opFill,
	// fillup writes at the end until that fails.
	"fillup": func(c *call) (string, error) {
		fd, buf := c.fd(), aligned(1<<20)
		for {
			if _, err := unix.Write(fd, buf); err != nil {
				return "", err
			}
		}
	},
	"seek": func(c *call) (string, error) {
		fd, offset, whence := c.fd(), c.num(), c.flags()
		at, err := unix.Seek(fd, offset, whence)
		return fmt.Sprint(at), err
	},
	"fsync":     func(c *call) (string, error) { return "", unix.Fsync(c.fd()) },
	"fdatasync": func(c *call) (string, error) { return "", unix.Fdatasync(c.fd()) },
	"contents":  opContents,
	"getflags": func(c *call) (string, error) {
		flags, err := unix.FcntlInt(uintptr(c.fd()), unix.F_GETFL, 0)
		return fmt.Sprintf("0%o", flags&^unix.O_LARGEFILE), err
	},
	"setflags": func(c *call) (string, error) {
		_, err := unix.FcntlInt(uintptr(c.fd()), unix.F_SETFL, c.flags())
		return "", err
	},
}

func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// opOpen takes a path, flags, and a mode where the flags create something.
func opOpen(c *call) (string, error) {
	path, flags := c.str(), c.flags()
	return c.keep(unix.Open(path, flags|unix.O_CLOEXEC, c.optionalMode()))
}

func opOpenat(c *call) (string, error) {
	dir, path, flags := c.fd(), c.str(), c.flags()
	return c.keep(unix.Openat(dir, path, flags|unix.O_CLOEXEC, c.optionalMode()))
}

func (c *call) optionalMode() uint32 {
	if c.more() {
		return c.mode()
	}
	return 0
}

func readSome(c *call, read func(int, []byte) (int, error)) (string, error) {
	fd, size := c.fd(), c.int()
	buf := aligned(size)
	n, err := read(fd, buf)
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "eof", nil
	}
	return string(buf[:n]), nil
}

// count prints how many bytes went through.
func count(n int, err error) (string, error) { return fmt.Sprint(n), err }

// opFill writes LENGTH times one letter at OFFSET, from aligned memory, so that it serves O_DIRECT as well.
func opFill(c *call) (string, error) {
	fd, letter, offset, length := c.fd(), c.str(), c.num(), c.int()
	buf := aligned(length)
	copy(buf, bytes.Repeat([]byte(letter), length))
	return count(unix.Pwrite(fd, buf, offset))
}

// aligned gives memory that O_DIRECT accepts everywhere.
func aligned(size int) []byte {
	const page = 4096
	buf := make([]byte, size+page)
	skip := 0
	for ; !isAligned(buf[skip:], page); skip++ {
	}
	return buf[skip : skip+size]
}

// opContents reads a whole file; runs of one letter over 16 bytes are shortened to "a*4096".
func opContents(c *call) (string, error) {
	data, err := os.ReadFile(c.str())
	if err != nil {
		return "", err
	}
	if len(data) == 0 {
		return "empty", nil
	}
	var out bytes.Buffer
	for len(data) > 0 {
		n := len(data) - len(bytes.TrimLeft(data, string(data[:1])))
		if n > 16 {
			fmt.Fprintf(&out, "[%s*%d]", printable(data[0]), n)
		} else {
			out.Write(bytes.ReplaceAll(data[:n], []byte{0}, []byte(`\0`)))
		}
		data = data[n:]
	}
	return out.String(), nil
}

func printable(b byte) string {
	if b == 0 {
		return `\0`
	}
	return string(rune(b))
}

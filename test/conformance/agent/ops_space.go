// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// spaceOps change and move what a file has allocated.
var spaceOps = map[string]operation{
	// fallocate takes a descriptor, a mode, an offset and a length, in the order of the system call.
	"fallocate": func(c *call) (string, error) {
		return "", unix.Fallocate(c.fd(), uint32(c.flags()), c.num(), c.num())
	},
	"copyrange": opCopyRange,
	"ficlone":   func(c *call) (string, error) { return "", unix.IoctlFileClone(c.fd(), c.fd()) },
	"sendfile":  opSendfile,
	"splice":    opSplice,
}

// opCopyRange takes source, its offset, destination, its offset, and length; it copies until nothing more comes.
func opCopyRange(c *call) (string, error) {
	in, from, out, to, length := c.fd(), c.num(), c.fd(), c.num(), c.int()
	copied := 0
	for copied < length {
		n, err := unix.CopyFileRange(in, &from, out, &to, length-copied, 0)
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
		copied += n
	}
	return fmt.Sprint(copied), nil
}

// opSendfile takes destination, source, offset and length.
func opSendfile(c *call) (string, error) {
	out, in, offset, length := c.fd(), c.fd(), c.num(), c.int()
	n, err := unix.Sendfile(out, in, &offset, length)
	return fmt.Sprint(n), err
}

// opSplice moves bytes through a pipe: source, offset, destination, offset, length.
func opSplice(c *call) (string, error) {
	in, from, out, to, length := c.fd(), c.num(), c.fd(), c.num(), c.int()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return "", err
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	n, err := unix.Splice(in, &from, pipe[1], nil, length, 0)
	if err != nil {
		return "", err
	}
	m, err := unix.Splice(pipe[0], nil, out, &to, int(n), 0)
	return fmt.Sprint(m), err
}

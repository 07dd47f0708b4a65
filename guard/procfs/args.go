// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
)

// maxArgs is how much of a command line is read, in bytes.
const maxArgs = 4096

// Args is a process's command line as far as it fits into maxArgs, its own name first. A process can write what it likes
// there, so it is good for messages only. Reading it may wait for the process's memory: ask with no lock held.
func (f FS) Args(pid int) []string {
	var buf [maxArgs]byte
	n, err := f.read(pid, "cmdline", buf[:])
	if err != nil || n == 0 {
		return nil
	}
	var args []string
	for _, a := range bytes.Split(bytes.TrimSuffix(buf[:n], []byte{0}), []byte{0}) {
		args = append(args, string(a))
	}
	return args
}

// SPDX-License-Identifier: Apache-2.0

package qlock

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// OwnFD says what is locked through a descriptor's open file description (OFD locks, which this process has forwarded):
// QEMU's image locks, and whether any lock keeps others from writing: QEMU's that lets nobody else write, or a write
// lock of another program's. fcntl(2) shows only the locks of others; these are in /proc/self/fdinfo (proc_pid_fdinfo(5)).
func OwnFD(fd int) (h Held, exclusive bool, err error) {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return Held{}, false, fmt.Errorf("look at one's own locks: %w", err)
	}
	for line := range bytes.Lines(text) {
		// "lock:\t1: OFDLCK ADVISORY  READ -1 00:2b:131 201 201"
		f := bytes.Fields(line)
		if len(f) != 9 || string(f[0]) != "lock:" {
			continue
		}
		from, err1 := strconv.ParseInt(string(f[7]), 10, 64)
		to, err2 := strconv.ParseInt(string(f[8]), 10, 64)
		if string(f[4]) == "WRITE" && (string(f[2]) == "FLOCK" || string(f[8]) == "EOF" || from < permBase || from >= unsharedBase+100) {
			exclusive = true
		}
		if err1 != nil || err2 != nil {
			continue
		}
		h.Used |= within(from, to, permBase)
		h.Unshared |= within(from, to, unsharedBase)
	}
	return h, exclusive || h.Unshared&Write != 0, nil
}

// within are the permissions whose bytes a lock covers that lies among the bytes of one base.
func within(from, to, base int64) (p Perm) {
	if from < base || to >= base+100 {
		return 0
	}
	for n := range int64(bits) {
		if from <= base+n && base+n <= to {
			p |= 1 << n
		}
	}
	return p
}

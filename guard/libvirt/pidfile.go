// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// maxPIDFile bounds what is read of a pid file, in bytes.
const maxPIDFile = 64

// takePID looks for the pid of a domain of which nothing else is known. QEMU's driver keeps NAME.pid beside NAME.xml, written
// before QEMU is executed (virCommandSetPidFile); it says whether the domain runs at all, and whose files to look at.
func (d *Domain) takePID(dirfd int, steps *atomic.Int64) {
	if d.Driver != "qemu" {
		return // another driver's process may have others open its images
	}
	text, st, err := readAt(dirfd, d.Name+".pid", wholeFile(maxPIDFile, steps))
	if err != nil {
		return
	}
	if pid, ok := parsePIDFile(text); ok {
		d.PID, d.Written = pid, time.Unix(st.mtime.Unix())
	}
}

// parsePIDFile reads a pid file: a number and a newline.
func parsePIDFile(text []byte) (int, bool) {
	pid, err := strconv.Atoi(strings.TrimSuffix(string(text), "\n"))
	return pid, err == nil && pid > 0
}

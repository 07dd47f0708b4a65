// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// trimAfter is how long a process has been up when what its start took is given back.
const trimAfter = 2 * time.Second

// trimLater gives back, in a while, the memory of the program's file that only its start needed: some 7 MiB of command line,
// tables and initialisation. What it needs again comes from the page cache. A standby needs it when it takes over.
func trimLater() { time.AfterFunc(trimAfter, trim) }

func trim() {
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer smaps.Close()
	eachUnchanged(smaps, func(from, to uintptr) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED) // or it stays
	})
}

// eachUnchanged calls f for each mapping of a file that cannot be written to and has no page of its own: relocation and
// a debugger's breakpoints make such, which are lost if given back. smaps is what proc_pid_smaps(5) describes.
func eachUnchanged(smaps io.Reader, f func(from, to uintptr)) {
	var from, to uintptr
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		var start, end, inode uint64
		var perms, offset, device, amount string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %d", &start, &end, &perms, &offset, &device, &inode); n == 6 {
			from, to = uintptr(start), uintptr(end)
			if inode == 0 || perms[:2] != "r-" || perms[3] != 'p' {
				to = 0
			}
		}
		if n, _ := fmt.Sscanf(lines.Text(), "Anonymous: %s kB", &amount); n == 1 && amount == "0" && to != 0 {
			f(from, to)
		}
	}
}

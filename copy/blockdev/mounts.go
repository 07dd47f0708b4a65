// SPDX-License-Identifier: Apache-2.0

package blockdev

import (
	"bufio"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mounts is where the device number is mounted in this mount namespace, or "swap". A device mounted only in another
// namespace is not seen here; the kernel's exclusive open refuses it all the same.
func mounts(number, name string) []string {
	var found []string
	if f, err := os.Open("/proc/self/mountinfo"); err == nil {
		defer f.Close()
		found = mountedAt(f, number, deviceNumber)
	}
	if f, err := os.Open("/proc/swaps"); err == nil {
		defer f.Close()
		if swapsTo(f, name) {
			found = append(found, "swap")
		}
	}
	return found
}

// mountedAt reads mountinfo (proc_pid_mountinfo(5)): the third field is the device number, the fifth the mount point, and
// the second one after a dash the device by name. btrfs has a number of its own, and only the name names it; numberOf says
// which device that is.
func mountedAt(r io.Reader, number string, numberOf func(path string) string) []string {
	var found []string
	for s := bufio.NewScanner(r); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields, source := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(source) < 2 {
			continue
		}
		if fields[2] == number || strings.HasPrefix(source[1], "/dev/") && numberOf(unescape.Replace(source[1])) == number {
			found = append(found, unescape.Replace(fields[4]))
		}
	}
	return found
}

// deviceNumber is that of a block device, "8:1"; "" if path is none.
func deviceNumber(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	return number(st.Rdev)
}

// unescape undoes the kernel's octal escapes in mount points.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func swapsTo(r io.Reader, name string) bool {
	for s := bufio.NewScanner(r); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 0 && fields[0] == "/dev/"+name {
			return true
		}
	}
	return false
}

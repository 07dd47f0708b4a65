package blockdev

import (
	"bufio"
	"io"
	"os"
	"strings"
)

// mounts is where the device number is mounted in this mount namespace, or "swap". A device mounted only in another
// namespace is not seen here; the kernel's exclusive open refuses it all the same.
func mounts(number, name string) []string {
	var found []string
	if f, err := os.Open("/proc/self/mountinfo"); err == nil {
		defer f.Close()
		found = mountedAt(f, number)
	}
	if f, err := os.Open("/proc/swaps"); err == nil {
		defer f.Close()
		if swapsTo(f, name) {
			found = append(found, "swap")
		}
	}
	return found
}

// mountedAt reads mountinfo (proc_pid_mountinfo(5)): the third field is the device number, the fifth the mount point.
func mountedAt(r io.Reader, number string) []string {
	var found []string
	for s := bufio.NewScanner(r); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) > 4 && fields[2] == number {
			found = append(found, unescape.Replace(fields[4]))
		}
	}
	return found
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

// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
)

// numbered splits "vm-disk2" into "vm-disk", "2" and "": the last number of a name without its extension. It is compiled when
// it is needed: most copies are of a millisecond's work, and need it not.
var numbered = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(.*?)([0-9]{1,9})(\D*)$`) })

// NextFree returns the first name after path in its series that does not exist: vm-disk3.img for vm-disk2.img when
// disk2 is there. It is empty for a name without a number, and for a device: nobody makes the next one by copying.
func NextFree(path string) string {
	if InDev(path) {
		return ""
	}
	dir, base := filepath.Split(path)
	ext := filepath.Ext(base) // kept apart, for the 2 of .qcow2 is no number of the series
	m := numbered().FindStringSubmatch(base[:len(base)-len(ext)])
	if m == nil {
		return ""
	}
	n, err := strconv.Atoi(m[2])
	if err != nil {
		return ""
	}
	for i := n + 1; i < n+10_000; i++ {
		digits := strconv.Itoa(i)
		for len(digits) < len(m[2]) { // disk09 is followed by disk10, disk008 by disk009
			digits = "0" + digits
		}
		next := dir + m[1] + digits + m[3] + ext
		if _, err := os.Lstat(next); os.IsNotExist(err) {
			return next
		}
	}
	return ""
}

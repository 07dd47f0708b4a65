// SPDX-License-Identifier: Apache-2.0

package claims

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// partitioned is a loop device with two partitions of 1 MiB each, that the kernel is told of: not each reads partition tables.
func (f *fleet) partitioned(name string) (file, device string) {
	f.t.Helper()
	file = filepath.Join(f.dir, name)
	f.must(os.WriteFile(file, make([]byte, 4<<20), 0o600))
	device = f.loop(file, "-P")
	for _, p := range [][]string{{"1", "2048"}, {"2", "4096"}} {
		f.must(exec.Command("addpart", device, p[0], p[1], "2048").Run())
	}
	return file, device
}

// TestLayers: what shares bytes with an image in use, above and below it, can be had by nobody, and nothing else is taken.
// (Device-mapper is in test/secondlayer; MD, multipath and bcache by what sysfs says of them in guard/layers.)
func TestLayers(t *testing.T) {
	need.Have(t, need.Tools("addpart"))
	f := newFleet(t)
	file, disk := f.partitioned("disk.img")
	names := map[string]string{"disk": disk, "p1": disk + "p1", "p2": disk + "p2", "file": file}
	names["above p1"] = f.loop(names["p1"])
	pid, _ := f.vmm()
	f.guard()
	devices := []string{"disk", "p1", "p2", "above p1"}
	for _, c := range []struct {
		used string
		busy []string
	}{
		{"file", devices},
		{"disk", devices},
		{"p1", []string{"disk", "p1", "above p1"}},
		{"p2", []string{"disk", "p2"}},
		{"above p1", []string{"disk", "p1", "above p1"}},
	} {
		f.domain("vm", pid, names[c.used])
		for _, d := range devices {
			var want error
			if slices.Contains(c.busy, d) {
				want = unix.EBUSY
			}
			f.until(names[d], want)
		}
		// And it stays so: a device is not taken that was let go of for a moment.
		for _, d := range devices {
			if err := exclusive(names[d]); (err == unix.EBUSY) != slices.Contains(c.busy, d) {
				t.Errorf("%s is in use: %s: %v, want busy: %s", c.used, d, err, strings.Join(c.busy, ", "))
			}
		}
		f.must(os.Remove(filepath.Join(f.status, "vm.xml")))
		for _, d := range devices {
			f.until(names[d], nil)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSetIDEndsWithTheWrite: who writes to a set-user-ID file takes the bit away, and what is written does not run as the
// file's owner, not for a moment.
func TestSetIDEndsWithTheWrite(t *testing.T) {
	atPlaces(t, func(t *testing.T, p *place) {
		dir := freshDir(t, p)
		id, err := os.ReadFile("/usr/bin/id")
		if err != nil {
			t.Fatal(err)
		}
		x := filepath.Join(dir, "x")
		run := func(script string) string {
			t.Helper()
			cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
			return strings.TrimSpace(string(out))
		}
		for _, before := range []string{"", "ls -l x >/dev/null; ", "./x -u >/dev/null; "} {
			for script, want := range map[string]string{"./x -u": "0", before + "cat /usr/bin/id 1<>x; ./x -u": "65534"} {
				if err := os.WriteFile(x, id, 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(x, os.ModeSetuid|0o777); err != nil {
					t.Fatal(err)
				}
				if got := run(script); got != want {
					t.Errorf("%s: it runs as %s, want %s", script, got, want)
				}
			}
		}
	})
}

// TestMappedStoreMovesTimes: a store through a shared mapping moves mtime and ctime, whatever the kernel remembered of the
// file when it was opened.
func TestMappedStoreMovesTimes(t *testing.T) {
	atPlaces(t, func(t *testing.T, p *place) {
		name := filepath.Join(freshDir(t, p), "f")
		if err := os.WriteFile(name, make([]byte, 4096), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			before := statTimes(t, name)
			if err := waitPast(time.Unix(before.Ctime.Sec, int64(before.Ctime.Nsec))); err != nil {
				t.Fatal(err)
			}
			before = statTimes(t, name)
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			m[0]++
			if err := unix.Msync(m, unix.MS_SYNC); err != nil {
				t.Fatal(err)
			}
			if err := unix.Munmap(m); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if after := statTimes(t, name); after.Mtime == before.Mtime || after.Ctime == before.Ctime {
				t.Errorf("mtime %v, ctime %v have not moved", after.Mtime, after.Ctime)
			}
		}
	})
}

// statTimes asks for no more than these: the kernel asks again for atime, after a mapping, and would be told the others too.
func statTimes(t *testing.T, name string) (sx unix.Statx_t) {
	t.Helper()
	if err := unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_MTIME|unix.STATX_CTIME, &sx); err != nil {
		t.Fatal(err)
	}
	return sx
}

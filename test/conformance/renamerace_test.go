// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"flag"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// On one processor a rename waits for the spinning readers, 12 ms each time: 100,000 were half an hour in each suite.
var renames = flag.Int("renames", 300, "renames beside look-ups; ten times that under make test-all")

// TestRenamesBesideLookups: who looks up a name while it is renamed finds it or does not, and gets no other error; nor does
// who renames, as libvirt does with each state that it writes: it once got EINVAL.
func TestRenamesBesideLookups(t *testing.T) {
	times := *renames
	if need.All() {
		times *= 10
	}
	atPlaces(t, func(t *testing.T, p *place) {
		dir := freshDir(t, p)
		file, made := filepath.Join(dir, "state.xml"), filepath.Join(dir, "state.xml.new")
		var ended sync.WaitGroup
		end := make(chan struct{})
		looks := []func() error{
			func() error { var st unix.Stat_t; return unix.Lstat(file, &st) },
			func() error { return unix.Access(made, unix.R_OK) },
			func() error {
				fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err == nil {
					unix.Close(fd)
				}
				return err
			},
		}
		for i, look := range looks {
			ended.Go(func() {
				for {
					select {
					case <-end:
						return
					default:
					}
					if err := look(); err != nil && err != unix.ENOENT {
						t.Errorf("look %d: %v", i, err)
						return
					}
				}
			})
		}
		for i := range times {
			if err := os.WriteFile(made, []byte("state"), 0o600); err != nil {
				t.Errorf("write %d: %v", i, err)
				break
			}
			if err := unix.Rename(made, file); err != nil {
				t.Errorf("rename %d: %v", i, err)
				break
			}
		}
		close(end)
		ended.Wait()
	})
}

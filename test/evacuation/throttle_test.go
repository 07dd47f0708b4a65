// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"path/filepath"
	"strings"
	"testing"

	"imgward/copy/domain/libvirtd"
	"imgward/test/harness"
)

// testThrottle: while an overlay is merged the guest's writes to the disk are limited, and afterwards the disk has the limit that
// it had, if any, also when imgcp and its guardian were killed meanwhile.
func testThrottle(t *testing.T, s *scene) {
	conn := libvirtd.New("")
	defer conn.Close()
	d, err := conn.Domain(t.Context(), "vm")
	if err != nil {
		t.Fatal(err)
	}
	has := func(limit string) uint64 {
		limits, err := conn.DiskLimits(t.Context(), d, "vda")
		if err != nil {
			t.Fatal(err)
		}
		return limits[limit]
	}
	for _, c := range []struct {
		name, limit string
		was         uint64
		killed      bool
	}{
		{"none before", "write_bytes_sec", 0, false},
		{"killed, none before", "write_bytes_sec", 0, true},
		{"killed, the user's own", "write_bytes_sec", 900_000_000, true},
		{"the user's own, of all", "total_bytes_sec", 800_000_000, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := func(to uint64) {
				if err := conn.LimitDisk(t.Context(), d, "vda", c.limit, to); err != nil {
					t.Fatal(err)
				}
			}
			set(c.was)
			defer set(0)
			s.dest = filepath.Join(s.Out, "throttle "+c.name)
			cmd := s.start(t, "--rate-limit=32M", "--throttle=3M", "vm", s.dest)
			harness.Until(t, "the guest is slowed down", func() bool {
				for range 100 { // a merge takes a tenth of a second at least
					if has(c.limit) == 3*MiB {
						return true
					}
				}
				return strings.Contains(s.log(t), "slowed down") // it was, between two looks
			})
			if c.killed {
				s.kill(t, cmd, true)
				s.imgcp(t, "--repair", "vm").OK(t)
			} else {
				s.ends(t, cmd)
			}
			if now := has(c.limit); now != c.was {
				t.Errorf("%s is %d afterwards, it was %d", c.limit, now, c.was)
			}
			s.atHome(t)
		})
	}
	// What is stricter already stays.
	if err := conn.LimitDisk(t.Context(), d, "vda", "write_bytes_sec", 2*MiB); err != nil {
		t.Fatal(err)
	}
	s.dest = filepath.Join(s.Out, "throttle stricter")
	s.imgcp(t, "--throttle=3M", "vm", s.dest).OK(t)
	if now := has("write_bytes_sec"); now != 2*MiB {
		t.Errorf("the user's stricter limit is %d", now)
	}
	if err := conn.LimitDisk(t.Context(), d, "vda", "write_bytes_sec", 0); err != nil {
		t.Fatal(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"maps"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLockedNodes: QEMU's locks are told from others in /proc/locks.
func TestLockedNodes(t *testing.T) {
	table := `1: OFDLCK ADVISORY  READ -1 00:06:345 100 101
2: OFDLCK ADVISORY  READ -1 00:06:346 100 100
3: OFDLCK ADVISORY  READ -1 00:06:346 203 203
4: OFDLCK ADVISORY  READ -1 00:06:347 0 EOF
5: POSIX  ADVISORY  WRITE 12 00:06:348 100 101
6: OFDLCK ADVISORY  READ -1 fe:00:349 100 101
6: -> OFDLCK ADVISORY  READ -1 00:06:350 100 101
7: FLOCK  ADVISORY  WRITE 12 00:06:351 0 EOF
`
	want := map[uint64]bool{345: true, 346: false}
	if got := lockedNodes(table, unix.Mkdev(0, 6)); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

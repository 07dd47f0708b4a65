// SPDX-License-Identifier: Apache-2.0

package need

import "testing"

func TestNewEnough(t *testing.T) {
	for _, tc := range []struct {
		release, feature string
		want             bool
	}{
		{"6.18.5-arch1", "FUSE_NOTIFY_PRUNE (Linux 6.18)", true},
		{"6.17.0", "FUSE_NOTIFY_PRUNE (Linux 6.18)", false},
		{"7.0", "FUSE_NOTIFY_PRUNE (Linux 6.18)", true},
		{"5.19", "FUSE_NOTIFY_PRUNE (Linux 6.18)", false},
		{"6.18", "io_uring (Linux 5.6; CONFIG_IO_URING)", false},
		{"6.18", "audit log (CONFIG_AUDIT)", false},
	} {
		if got := newEnough(tc.release, tc.feature); got != tc.want {
			t.Errorf("%s, %s: %t", tc.release, tc.feature, got)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package evacuation

import (
	"path/filepath"
	"testing"
)

// TestRunning is about a running domain. To start a host and a domain takes longer than most of these, so they share one; each
// leaves it running on its own images.
func TestRunning(t *testing.T) {
	s := newScene(t)
	s.vm.Start(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *scene)
	}{
		{"backup", testBackup},
		{"mirror", testMirror},
		{"block job", testBlockJob},
		{"libvirtd restarts", testLibvirtdRestarts},
		{"killed in snapshot", testKilledInSnapshot},
		{"killed at once", testKilledAtOnce},
		{"merged twice", testMergedTwice},
		{"throttle", testThrottle},
		{"traps", testTraps},
		{"killed", testKilled},
	} {
		s.dest = filepath.Join(s.Out, c.name)
		if !t.Run(c.name, func(t *testing.T) { c.test(t, s) }) {
			return // the next one would fail, too
		}
	}
}

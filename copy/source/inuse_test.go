// SPDX-License-Identifier: Apache-2.0

package source

import (
	"testing"

	"imgward/guard"
)

// TestDescribe: whatever is known of a use, it is a sentence.
func TestDescribe(t *testing.T) {
	for want, u := range map[string]guard.Use{
		"it is vdb of running domain rhevm (pid 7)":            {Domain: "rhevm", Target: "vdb", Role: guard.RoleDisk, PID: 7},
		"it is open in a running virtual machine (pid 7)":      {Role: guard.RoleUnknown, PID: 7, Evidence: guard.EvidenceProcess},
		"it may be a disk of running domain rhevm (pid 7)":     {Domain: "rhevm", Role: guard.RoleUnknown, PID: 7, Problem: "cannot be parsed"},
		"QEMU's image locks are held on it by another process": {Role: guard.RoleUnknown, Evidence: guard.EvidenceLock},
	} {
		if got := Describe(u); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

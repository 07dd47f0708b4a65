// SPDX-License-Identifier: Apache-2.0

package target

import "imgward/test/isolate"

// Isolated runs body in mount and pid namespaces of its own and returns its exit code; see isolate.Sandbox.
//
// What others do to namespaces then cannot reach the mounts (one who unshares would keep a copy of each, and with it
// the daemon, which lives until the last copy is gone), and no daemon, mount or loop device is left when a test is killed.
func Isolated(body func() int) int {
	return isolate.Sandbox{}.Run(body)
}

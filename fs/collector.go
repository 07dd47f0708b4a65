// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"os"
	"runtime/debug"
)

// How often garbage is collected. A worker has 3 MiB that live and makes a kilobyte for a request, so that with Go's own
// choice, which is to collect when that has doubled, a third of its work was collecting. It would be told "at 15 MiB, or
// when a third has been added", but there is no such setting; memory that is never touched, and so is none, stands for it.
// Measured by turns at a load of 20: an open for writing and close takes 62 µs of CPU with it and 97 without; with 100,000
// nodes the worker has 38 MiB of its own instead of 39.
const (
	ballastSize = 32 << 20
	gcPercent   = 33
)

// collectSeldom sets that, unless the environment has its own setting (GOGC), and returns what must be kept.
func collectSeldom() (ballast []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, ballastSize)
}

// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"os"
	"runtime/debug"
)

// How often garbage is collected. A worker has 3 MiB that live, so that with Go's own choice, which is to collect when that
// has doubled, a third of its work was collecting. It would be told "when 5 MiB have been added, or a quarter", but there is
// no such setting; memory that is never touched, and so is none, stands for it. What the loop answers itself (loopplain.go)
// makes no garbage, so less room will do than did before that: 32 MiB and a third are no faster in what can be measured at a
// load of 20, and take 33 MiB instead of 23 with 100,000 nodes (of which 7 live).
const (
	ballastSize = 16 << 20
	gcPercent   = 25
)

// collectSeldom sets that, unless the environment has its own setting (GOGC), and returns what must be kept.
func collectSeldom() (ballast []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, ballastSize)
}

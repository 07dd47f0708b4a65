// SPDX-License-Identifier: Apache-2.0

package need

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// Main runs the tests of m with run if the machine has all of these, and returns the exit code for os.Exit. Else it says
// what is missing and runs none: a failure only where nothing may be missing.
func Main(m *testing.M, run func() int, things ...Thing) int {
	lacks := Missing(things...)
	if len(lacks) == 0 {
		return run()
	}
	if !flag.Parsed() {
		flag.Parse()
	}
	if Required() {
		Tell(os.Stdout, "FAIL: nothing may be missing here (IMGWARD_TEST_REQUIRE=1), but", lacks)
		return 1
	}
	Tell(os.Stdout, "SKIP: these tests cannot run here", lacks)
	flag.Set("test.run", "^$") // go test then says "no tests to run" beside its ok
	return m.Run()
}

// Tell prints all that is missing, and what to do.
func Tell(to *os.File, what string, lacks []Lack) {
	fmt.Fprintln(to, what+":")
	for _, l := range lacks {
		fmt.Fprintf(to, "  %s\n      %s\n", l.What, l.Do)
	}
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"os"
	"testing"

	"imgward/test/conformance/agent"
	"imgward/test/conformance/target"
	"imgward/test/isolate"
	"imgward/test/need"
)

func TestMain(m *testing.M) {
	if agent.Serve() {
		return
	}
	run := func() int { return target.Isolated(func() int { return withTools(m.Run) }) }
	if !isolate.Outside() {
		os.Exit(run())
	}
	os.Exit(need.Main(m, run, append(need.View(), need.Loops, need.Space(os.TempDir(), 4))...))
}

// toolsEnv names the directory where programs under test are built, once for all tests.
const toolsEnv = "IMGWARD_TEST_TOOLS"

// withTools runs the tests with a directory for what they build.
func withTools(run func() int) int {
	dir, err := os.MkdirTemp("", "imgward-conformance-tools-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Setenv(toolsEnv, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
	return run()
}

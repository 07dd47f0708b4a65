package conformance

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"imgward/test/conformance/agent"
	"imgward/test/conformance/target"
)

func TestMain(m *testing.M) {
	if agent.Serve() {
		return
	}
	flag.Parse()
	if os.Geteuid() == 0 && !testing.Short() {
		if status, done := target.Isolate(); done {
			os.Exit(status)
		}
	}
	os.Exit(withTools(m.Run))
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

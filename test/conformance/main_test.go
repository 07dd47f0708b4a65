package conformance

import (
	"flag"
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
	os.Exit(m.Run())
}

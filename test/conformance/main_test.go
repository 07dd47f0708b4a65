package conformance

import (
	"flag"
	"os"
	"testing"

	"imgward/test/conformance/agent"
)

func TestMain(m *testing.M) {
	if agent.Serve() {
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"imgward/guard"
)

// slowFile does not answer until it is let go.
type slowFile struct {
	guard.HostDirect
	asked, answer chan struct{}
}

func (s slowFile) Open(path string) (*os.File, error) {
	close(s.asked)
	<-s.answer
	return s.HostDirect.Open(path)
}

// A policy file that does not answer is named, and whoever asks for the state does not wait for it.
func TestPolicyFileThatDoesNotAnswer(t *testing.T) {
	host := slowFile{asked: make(chan struct{}), answer: make(chan struct{})}
	g, err := guard.New(guard.Config{Brief: true})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	f := &policyFile{
		path: t.TempDir() + "/policy.toml", given: true, host: host, guard: g, inView: func(string) bool { return false },
		log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = f.Reload(context.Background())
	}()
	<-host.asked
	if err := f.Fault(); err == nil || !strings.Contains(err.Error(), f.path) {
		t.Errorf("the file that is being read: %v", err)
	}
	close(host.answer)
	<-done
	if err := f.Fault(); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("the file that is not there: %v", err)
	}
}

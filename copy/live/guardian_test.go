// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// helper runs Guard in a process of its own, as cmd/imgcp does.
func helper() []string { return []string{os.Args[0], "-test.run=^TestHelperGuardian$"} }

const helperEnv = "IMGCP_TEST_HELPER"

func TestHelperGuardian(t *testing.T) {
	if os.Getenv(helperEnv) == "" {
		return
	}
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	_ = Guard(os.Stdin, os.Stdout, &fake{t, os.Getenv(fakeEnv)})
}

func suspendScript(limit time.Duration) script {
	return script{Limit: limit, Steps: []step{{Kind: suspend, Domain: "vm"}}}
}

func TestGuardian(t *testing.T) {
	f := newFake(t)
	t.Setenv(helperEnv, "1")
	w, err := startGuardian(helper(), suspendScript(0), f)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.read("state"); got != "paused" {
		t.Errorf("the domain is %s", got)
	}
	if late, err := w.leave(); late || err != nil {
		t.Errorf("late %v, error %v", late, err)
	}
	if got := f.read("state"); got != "running" {
		t.Errorf("afterwards the domain is %s", got)
	}
}

func TestGuardianCannotBegin(t *testing.T) {
	f := newFake(t)
	t.Setenv(helperEnv, "1")
	f.write("no-suspend", "")
	if _, err := startGuardian(helper(), suspendScript(0), f); err == nil || !strings.Contains(err.Error(), "no") {
		t.Errorf("error %v: libvirt's own words are wanted", err)
	}
	if got := f.calls(); !slices.Equal(got, []string{"suspend", "resume"}) {
		t.Errorf("libvirt was asked for %q: what may have been done is undone", got)
	}
}

// TestTimeIsUp: a parent that hangs does not keep a machine suspended.
func TestTimeIsUp(t *testing.T) {
	f := newFake(t)
	t.Setenv(helperEnv, "1")
	w, err := startGuardian(helper(), suspendScript(50*time.Millisecond), f)
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("resumed", func() bool { return f.read("state") == "running" })
	if late, err := w.leave(); !late || err != nil {
		t.Errorf("late %v, error %v", late, err)
	}
}

// TestParentKilled kills the process that has a machine suspended, with the signal that cannot be caught.
func TestParentKilled(t *testing.T) {
	f := newFake(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperParent$")
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.eventually("suspended", func() bool { return f.read("state") == "paused" })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	f.eventually("resumed", func() bool { return f.read("state") == "running" })
}

// TestHelperParent suspends and hangs.
func TestHelperParent(t *testing.T) {
	if os.Getenv(helperEnv) == "" {
		return
	}
	s := Suspend{Libvirt: &fake{t, os.Getenv(fakeEnv)}, Helper: helper(), Log: slog.New(slog.DiscardHandler)}
	_ = s.suspended(t.Context(), []string{"vm"}, func() error { select {} })
}

// TestGuardianKilled: then it falls to the parent.
func TestGuardianKilled(t *testing.T) {
	f := newFake(t)
	t.Setenv(helperEnv, "1")
	w, err := startGuardian(helper(), suspendScript(0), f)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.leave(); err == nil {
		t.Error("nobody said that the helper had died")
	}
	if got := f.read("state"); got != "running" {
		t.Errorf("the domain is %s", got)
	}
}

// TestPausedStaysPaused: a domain that somebody else suspended is not resumed.
func TestPausedStaysPaused(t *testing.T) {
	f := newFake(t)
	t.Setenv(helperEnv, "1")
	f.write("state", "paused")
	s := Suspend{Libvirt: f, Helper: helper(), Log: slog.New(slog.DiscardHandler)}
	failure := errors.New("no")
	if err := s.suspended(t.Context(), []string{"vm"}, func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	if got := f.calls(); !slices.Equal(got, []string{"state"}) {
		t.Errorf("libvirt was asked for %q", got)
	}
}

func TestGuardTakesNoNonsense(t *testing.T) {
	for _, in := range []string{"", "{", "null\n", `{"steps":[{"kind":"dance"}]}` + "\n"} {
		var out bytes.Buffer
		if err := Guard(strings.NewReader(in), &out, newFake(t)); err == nil && in != "null\n" {
			t.Errorf("%q: no error", in)
		}
	}
}

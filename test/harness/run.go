// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deadline is how long any one command may take. The slowest (a guest's managed save under TCG on a busy machine) take
// a few seconds, on one with a load of 40 a minute; beyond this something hangs.
const deadline = 3 * time.Minute

// Cmd is a command to run.
type Cmd struct {
	Args  []string
	Env   []string // added to the environment
	Stdin io.Reader
}

// Result is how a command ended.
type Result struct {
	Args   []string
	Exit   int // -1: ended by a signal
	Stdout string
	Stderr string
}

// Run runs a command to its end. A command that takes longer than the deadline fails the test, after all views were
// aborted: it may hang in one.
func Run(t testing.TB, args ...string) Result {
	t.Helper()
	return Cmd{Args: args}.Run(t)
}

// Sh runs a shell script with added environment.
func Sh(t testing.TB, script string, env ...string) Result {
	t.Helper()
	return Cmd{Args: []string{"sh", "-c", script}, Env: env}.Run(t)
}

// Run runs the command to its end; see the function Run.
func (c Cmd) Run(t testing.TB) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Env = append(cmd.Env, c.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		return errors.Join(syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL), abortViews())
	}
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	r := Result{Args: c.Args, Stdout: stdout.String(), Stderr: stderr.String()}
	if ctx.Err() != nil {
		t.Fatalf("%s: still running after %v\n%s", r.command(), deadline, r.output())
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Exit = exit.ExitCode()
	case err != nil:
		t.Fatalf("%s: %v", r.command(), err)
	}
	return r
}

// OK fails the test unless the command succeeded, and returns its standard output without surrounding white space.
func (r Result) OK(t testing.TB) string {
	t.Helper()
	if r.Exit != 0 {
		t.Fatalf("%s: exit %d\n%s", r.command(), r.Exit, r.output())
	}
	return strings.TrimSpace(r.Stdout)
}

// Fails fails the test unless the command failed and said want somewhere.
func (r Result) Fails(t testing.TB, want string) {
	t.Helper()
	if r.Exit == 0 {
		t.Fatalf("%s: succeeded, should have failed with %q\n%s", r.command(), want, r.output())
	}
	if !strings.Contains(r.output(), want) {
		t.Errorf("%s: exit %d, but said nothing of %q\n%s", r.command(), r.Exit, want, r.output())
	}
}

func (r Result) command() string { return strings.Join(r.Args, " ") }

func (r Result) output() string { return fmt.Sprintf("stdout: %s\nstderr: %s", r.Stdout, r.Stderr) }

// Until polls until ready returns true; after the deadline the test fails, saying what it waited for.
func Until(t testing.TB, what string, ready func() bool) {
	t.Helper()
	end := time.Now().Add(deadline)
	for !ready() {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain until %s", deadline, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

const credsHelper = "IMGWARD_TEST_CREDS"

// init is the worker that TestCredentialsOrDeath runs in a user namespace.
func init() {
	what := os.Getenv(credsHelper)
	if what == "" {
		return
	}
	c := map[string]caller{"groups": {tid: uint32(unix.Gettid())}, "fsuid": {uid: 12345}, "fsgid": {gid: 12345}, "own": {}}[what]
	err := c.as(what == "groups", func() error { return nil })
	fmt.Println("went on", err)
	os.Exit(0)
}

// TestCredentialsOrDeath: a worker that cannot take on a caller's credentials, or lay them down, ends before it does
// anything with them. A user namespace without setgroups(2), and with one id, makes them fail.
func TestCredentialsOrDeath(t *testing.T) {
	need.Have(t, need.View()...)
	for what, lives := range map[string]bool{"groups": false, "fsuid": false, "fsgid": false, "own": true} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), credsHelper+"="+what)
		one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one}
		out, err := cmd.CombinedOutput()
		var end *exec.ExitError
		killed := errors.As(err, &end) && end.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if lives != strings.HasPrefix(string(out), "went on <nil>") || lives == killed {
			t.Errorf("%s: %v, %s", what, err, out)
		}
	}
}

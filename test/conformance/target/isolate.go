package target

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"imgward/test/harness"
)

// isolated marks a process that runs in a mount namespace of its own.
const isolated = "IMGWARD_TEST_ISOLATED"

// Isolate starts this program again in a mount namespace of its own, with the same arguments, and returns its exit
// status once it has ended. In the program so started it returns (0, false) at once: go on.
//
// What others do to namespaces then cannot reach the mounts (one who unshares would keep a copy of each, and with it
// the daemon, which lives until the last copy is gone), and no mount is left when a test is killed.
func Isolate() (status int, done bool) {
	if os.Getenv(isolated) != "" {
		if err := harness.DetachViews(); err != nil {
			fmt.Fprintln(os.Stderr, "conformance:", err)
			return 1, true
		}
		return 0, false
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), isolated+"=1")
	// Unshareflags also makes every mount private, so that ours do not spread.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &ended) && ended.ExitCode() >= 0:
		return ended.ExitCode(), true
	}
	fmt.Fprintln(os.Stderr, "conformance: in a mount namespace of its own:", err)
	return 1, true
}

// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"imgward/test/isolate"
	"imgward/test/need"
)

// rootEnv names the directory of a sandbox, to those in it.
const rootEnv = "IMGWARD_SANDBOX_ROOT"

// scratch is where sandboxes are made: on a real file system (not a tmpfs, which has neither O_DIRECT nor reflinks), and
// searchable for the user that QEMU runs as.
const scratch = "/var/lib/imgward-test"

// Main runs the tests of m in a sandbox and returns the exit code for os.Exit. Where the machine has not what they need, it
// says so and runs none.
func Main(m *testing.M) int {
	if dirs := os.Getenv(deafEnv); dirs != "" {
		return serveDeaf(dirs)
	}
	run := func() int { return InSandbox(m.Run) }
	if !isolate.Outside() {
		return run()
	}
	return need.Main(m, run, need.Domains()...)
}

// InSandbox runs body in a sandbox and returns its exit code, or 1 if the sandbox cannot be had or something was left
// behind in it. It must be called from main (or TestMain) of a program, for it starts that program again.
func InSandbox(body func() int) int {
	if dir := os.Getenv(otherEnv); dir != "" {
		fmt.Fprintln(os.Stderr, "harness:", runOther(dir))
		return 1
	}
	return isolate.Sandbox{Around: withRoot, Enter: enterMounts, Left: mountsLeft}.Run(body)
}

// withRoot makes the sandbox's files and removes them afterwards.
func withRoot(start func(env ...string) (int, error)) (code int, err error) {
	if err := os.MkdirAll(scratch, 0o711); err != nil {
		return 1, err
	}
	removeStale()
	root, err := os.MkdirTemp(scratch, filepath.Base(os.Args[0])+".")
	if err != nil {
		return 1, err
	}
	lock, err := lockRoot(root, os.O_CREATE)
	if err != nil {
		return 1, err
	}
	defer lock.Close()
	defer func() { err = errors.Join(err, detachLoops(root), os.RemoveAll(root)) }()
	if err := os.Chmod(root, 0o711); err != nil {
		return 1, err
	}
	if err := prepare(root); err != nil {
		return 1, err
	}
	return start(rootEnv + "=" + root)
}

// lockRoot takes the lock that the owner of a sandbox holds for as long as it lives.
func lockRoot(root string, flags int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(root, "lock"), os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// removeStale removes the files of sandboxes whose owner was killed; their processes and mounts are gone already.
func removeStale() {
	roots, _ := filepath.Glob(scratch + "/*")
	for _, root := range roots {
		if lock, err := lockRoot(root, 0); err == nil {
			os.RemoveAll(root)
			lock.Close()
		}
	}
}

// detachLoops reports and detaches loop devices that still have their backing file below root.
func detachLoops(root string) error {
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range loops {
		backing, readErr := os.ReadFile(file)
		if readErr != nil || !within(string(backing), root) {
			continue
		}
		dev := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(file)))
		err = errors.Join(err, fmt.Errorf("left behind: %s on %s", dev, backing), exec.Command("losetup", "-d", dev).Run())
	}
	return err
}

package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// The stages that one test binary goes through; each starts the next.
const (
	stageEnv  = "IMGWARD_SANDBOX_STAGE"
	rootEnv   = "IMGWARD_SANDBOX_ROOT"
	stageInit = "init" // pid 1 of the namespaces: mounts, reaps
	stageBody = "body" // the tests
)

// scratch is where sandboxes are made: on a real file system (not a tmpfs, which has neither O_DIRECT nor reflinks), and
// searchable for the user that QEMU runs as.
const scratch = "/var/lib/imgward-test"

// Main runs the tests of m in a sandbox and returns the exit code for os.Exit.
func Main(m *testing.M) int { return InSandbox(m.Run) }

// InSandbox runs body in a sandbox and returns its exit code, or 1 if the sandbox cannot be had or something was left
// behind in it. It must be called from main (or TestMain) of a program, for it starts that program again.
func InSandbox(body func() int) int {
	switch os.Getenv(stageEnv) {
	case stageBody:
		return body()
	case stageInit:
		return runInit()
	}
	code, err := runOuter()
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return max(code, 1)
	}
	return code
}

// runOuter makes the sandbox's files, starts pid 1 in new namespaces, and removes everything afterwards.
func runOuter() (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("these tests mount, and start virtual machines: run them as root")
	}
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
	return startInit(root)
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

func startInit(root string) (code int, err error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageEnv+"="+stageInit, rootEnv+"="+root)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		// When `go test` kills a binary that hangs, everything below must die with it.
		Pdeathsig: syscall.SIGKILL,
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil // -1: killed by a signal
	}
	return 0, err
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

// SPDX-License-Identifier: Apache-2.0

// Package isolate runs a program's body in mount and pid namespaces of its own: nobody else sees its mounts, and whatever it
// started, mounted or attached (loop devices of mounts detach themselves) is gone when it ends or is killed.
package isolate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The stages that one program goes through; each starts the next.
const (
	stageEnv  = "IMGWARD_SANDBOX_STAGE"
	stageInit = "init" // pid 1 of the namespaces: mounts, reaps
	stageBody = "body"
)

// Sandbox is what a program does on the way to its body; each part may be nil.
type Sandbox struct {
	// Around is called outside, and calls start once: that returns when the namespaces are gone.
	Around func(start func(env ...string) (code int, err error)) (code int, err error)
	// Enter is called in the namespaces, before the body; /proc, /run and /var/log are theirs by then, no mount spreads from
	// or to the host, and the host's views and other suites' mounts are not there.
	Enter func() error
	// Left says, after the body, what it has left behind there, other than processes.
	Left func() error
}

// Outside reports whether this process is none that Run has started.
func Outside() bool { return os.Getenv(stageEnv) == "" }

// Run runs body in the sandbox and returns its exit code, or 1 if the sandbox cannot be had or something was left behind in
// it. It must be called from main (or TestMain), for it starts the program again, with the same arguments.
func (s Sandbox) Run(body func() int) int {
	switch os.Getenv(stageEnv) {
	case stageBody:
		return body()
	case stageInit:
		code, err := s.init()
		return say(code, err)
	}
	if s.Around == nil {
		return say(start())
	}
	return say(s.Around(start))
}

func say(code int, err error) int {
	if err == nil {
		return code
	}
	fmt.Fprintln(os.Stderr, "sandbox:", err)
	return max(code, 1)
}

// start starts pid 1 in new namespaces and waits for it.
func start(env ...string) (code int, err error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(append(os.Environ(), stageEnv+"="+stageInit), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		// When `go test` kills a binary that hangs, everything below must die with it.
		Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer relay(cmd.Process)()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil // -1: killed by a signal
	}
	return 0, err
}

// relay passes on the signals by which somebody ends a program, so that the body ends first and what is around it can clear
// up. A terminal sends them to all by itself; a second one does no harm.
func relay(to *os.Process) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	go func() {
		for s := range signals {
			to.Signal(s)
		}
	}()
	return func() { signal.Stop(signals); close(signals) }
}

// init is pid 1 of the sandbox. It must reap: libvirt waits for a QEMU that it killed until kill(pid, 0) says that there is
// no such process, and a zombie without a reaper would stay one.
func (s Sandbox) init() (code int, err error) {
	// Whatever sets the stage by mistake must not make processes without end, nor touch the host's mounts.
	if os.Getpid() != 1 {
		return 1, errors.New(stageEnv + " is for the sandbox itself; unset it")
	}
	if err := s.enter(); err != nil {
		return 1, err
	}
	self, err := os.Executable()
	if err == nil {
		err = os.Setenv(stageEnv, stageBody)
	}
	if err != nil {
		return 1, err
	}
	body, err := os.StartProcess(self, os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 1, err
	}
	defer relay(body)()
	if code, err = reapUntil(body.Pid); err != nil {
		return 1, err
	}
	left := remaining()
	if s.Left != nil {
		left = errors.Join(left, s.Left())
	}
	return code, left
}

func (s Sandbox) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := detachForeign(); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := OwnState(); err != nil {
		return err
	}
	if s.Enter == nil {
		return nil
	}
	return s.Enter()
}

// OwnState gives this mount namespace a /run, a /var/log and a directory of imgcp's state of its own, so that no test meets what
// runs on the host, and none leaves sockets, marks or lines in a log there. (The last one may have to be made on the host, and
// stays there, empty: to remove it would take the mount out of the other sandboxes.)
func OwnState() error {
	const imgcp = "/var/lib/imgcp"
	if err := os.MkdirAll(imgcp, 0o700); err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/var/log", imgcp} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return errors.Join(os.Mkdir("/run/lock", 0), os.Chmod("/run/lock", os.ModeSticky|0o777))
}

// reapUntil waits for all children, adopted ones included, until child ends, and returns its exit code.
func reapUntil(child int) (int, error) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait: %w", err)
		case pid == child && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == child:
			return status.ExitStatus(), nil
		}
	}
}

// remaining says which processes outlived the body. Processes that were told to end get a moment.
func remaining() error {
	var left []string
	for range 1000 {
		for pid := 1; pid > 0; { // reap what has ended
			pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		}
		if left = strangers(); len(left) == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("left behind: " + strings.Join(left, "; "))
}

// strangers lists the processes of the pid namespace other than pid 1.
func strangers() []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		cmdline, err := os.ReadFile(dir + "/cmdline")
		if err != nil || filepath.Base(dir) == "1" {
			continue
		}
		words := strings.ReplaceAll(strings.TrimRight(string(cmdline), "\x00"), "\x00", " ")
		found = append(found, fmt.Sprintf("process %s (%s)", filepath.Base(dir), words))
	}
	return found
}

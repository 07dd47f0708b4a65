package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets is a directory where QEMU, which is not root, may make sockets of short names.
const Sockets = "/run/sockets"

// runInit is pid 1 of the sandbox. It must reap: libvirt waits for a QEMU that it killed until kill(pid, 0) says that
// there is no such process, and a zombie without a reaper would stay one.
func runInit() int {
	root := os.Getenv(rootEnv)
	// Whatever sets the stage by mistake must not make processes without end, nor touch the host's mounts.
	if os.Getpid() != 1 || root == "" {
		fmt.Fprintln(os.Stderr, "harness: "+stageEnv+" is for the harness itself; unset it")
		return 1
	}
	if err := os.Setenv(stageEnv, stageBody); err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	if err := enterMounts(root); err != nil {
		fmt.Fprintln(os.Stderr, "harness: sandbox:", err)
		return 1
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	body, err := os.StartProcess(self, os.Args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness: start:", err)
		return 1
	}
	code := reapUntil(body.Pid)
	if err := nothingLeft(); err != nil {
		fmt.Fprintln(os.Stderr, "harness: left behind:", err)
		return max(code, 1)
	}
	return code
}

// enterMounts gives this mount namespace its own /proc, /run and libvirt directories.
func enterMounts(root string) error {
	// First cut off from the host, then shared among ourselves, as systemd leaves it: that a mount reaches the
	// namespaces made before it (libvirt gives each QEMU one) is part of what is tested.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := DetachViews(); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make / shared: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// No D-Bus in there either: libvirtd must not register our guests with the host's systemd.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{"/run/lock", Sockets} {
		if err := errors.Join(os.Mkdir(dir, 0), os.Chmod(dir, os.ModeSticky|0o777)); err != nil {
			return err
		}
	}
	for _, dir := range libvirtDirs {
		if err := unix.Mount(filepath.Join(root, dir), dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", dir, err)
		}
	}
	return mountFusectl()
}

// reapUntil waits for all children, adopted ones included, until child ends, and returns its exit code.
func reapUntil(child int) int {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "harness: wait:", err)
			return 1
		case pid == child && status.Signaled():
			return 128 + int(status.Signal())
		case pid == child:
			return status.ExitStatus()
		}
	}
}

// nothingLeft says which processes and FUSE mounts outlived the tests. Processes that were told to end get a moment.
func nothingLeft() error {
	var left []string
	for range 1000 {
		for pid := 1; pid > 0; { // reap what has ended
			pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		}
		if left = strangers(); len(left) == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	mounts, err := fuseMounts()
	for _, m := range mounts {
		left = append(left, "mount "+m.point)
	}
	if len(left) > 0 {
		err = errors.Join(err, errors.New(strings.Join(left, "; ")))
	}
	return err
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

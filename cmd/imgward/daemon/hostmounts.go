// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// sharesMounts says whether this process is in its service manager's mount namespace.
func sharesMounts() bool {
	own, err := os.Readlink("/proc/self/ns/mnt")
	manager, err2 := os.Readlink(managerMounts())
	return err == nil && err2 == nil && own == manager
}

// managerMounts is the mount namespace of the service manager, which is the host's.
func managerMounts() string { return fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()) }

// EnterHost starts this program again in the service manager's mount namespace, if it is not there already, and returns
// only if there is no need, or with an error. systemd gives each process of a service that asks for a sandbox a mount
// namespace, also one that it runs with full privileges ("+", seen in systemd 252: execute.c, exec_needs_mount_namespace).
func EnterHost() error {
	if sharesMounts() {
		return nil
	}
	ns, err := os.Open(managerMounts())
	if err != nil {
		return fmt.Errorf("find the host's mounts: %w", err)
	}
	// A thread alone may change its namespace once it shares its root and working directory with no other; exec makes
	// it the process.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the host's mount namespace: %w", err)
	}
	return fmt.Errorf("start again among the host's mounts: %w",
		syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", self.Fd()), os.Args, os.Environ()))
}

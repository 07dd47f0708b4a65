// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"os/signal"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelSigaction is the kernel's struct sigaction on 64-bit Linux.
type kernelSigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const saRestart = 0x10000000

// dontRestart lets a signal interrupt system calls: Go installs every handler with SA_RESTART, and fcntl(F_SETLKW)
// and flock would just be entered again.
func dontRestart(sig syscall.Signal) error {
	// The runtime only has a handler that survives the signal once somebody listens.
	signal.Notify(make(chan os.Signal, 1), sig)
	var act kernelSigaction
	if err := sigaction(sig, nil, &act); err != nil {
		return err
	}
	act.flags &^= saRestart
	return sigaction(sig, &act, nil)
}

func sigaction(sig syscall.Signal, set, old *kernelSigaction) error {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(set)),
		uintptr(unsafe.Pointer(old)), unsafe.Sizeof(set.mask), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

// Package pty makes pseudo-terminals for tests.
package pty

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open makes a pseudo-terminal. What is written to the terminal is read from the master.
func Open() (master, terminal *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	raw, err := master.SyscallConn() // not Fd(), after which Close would not end a Read
	if err != nil {
		return nil, nil, err
	}
	var n int
	var unlock, find error
	err = raw.Control(func(fd uintptr) {
		unlock = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		n, find = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
	})
	if err := errors.Join(err, unlock, find); err != nil {
		return nil, nil, fmt.Errorf("unlock and find the terminal: %w", err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, terminal, err
}

// Control makes the terminal, which must be the command's standard input, its controlling terminal.
func Control(cmd *exec.Cmd, terminal *os.File) {
	cmd.Stdin = terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
}

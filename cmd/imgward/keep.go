package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
	"imgward/fs/keeper"
)

// newKeeper is the daemon's parent half: it holds descriptors and starts workers (imgward/fs/keeper).
func newKeeper() *cobra.Command {
	var f mountFlags
	var adopt int
	c := &cobra.Command{
		Use:    "keeper DIR",
		Hidden: true,
		Args:   exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			unix.CloseOnExec(starterFd)
			return runKeeper(&f, args[0], os.NewFile(starterFd, "starter"), adopt)
		},
	}
	f.define(c)
	c.Flags().IntVar(&adopt, "adopt", 0, "watch the worker with this `PID`, which has lost its keeper")
	return c
}

// starterFd is the pipe to `imgward mount`, which waits for it.
const starterFd = 3

// runKeeper keeps a view until it ends. starter is told when it serves; nil in the foreground. adopt is the pid of a
// worker that serves already, or 0.
func runKeeper(f *mountFlags, mountpoint string, starter *os.File, adopt int) error {
	debug.SetGCPercent(gcPercent)
	lock, err := control.MakeDir(mountpoint)
	if err != nil {
		return err
	}
	defer os.RemoveAll(control.Dir(mountpoint))
	defer lock.Close()
	log, logFile, err := openLog(f.logFile, starter == nil)
	if err != nil {
		return err
	}
	viewfs.RaiseFileLimit(log)
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	k := &keeper.Keeper{
		Log:    log,
		Binary: binary,
		Args:   append([]string{"worker"}, f.args(mountpoint)...),
		Socket: filepath.Join(control.Dir(mountpoint), "notify.sock"),
		Adopt:  adopt,

		NoStandby: slices.Contains(f.options, noStandby),
		Ready: func() {
			if starter == nil {
				fmt.Fprintf(os.Stderr, "imgward: %s is protected\n", mountpoint)
				return
			}
			detach(log, logFile)
			_, _ = starter.WriteString(readyWord)
			starter.Close()
		},
	}
	err = k.Run()
	if !k.Served() {
		return errors.Join(errQuiet, clearDead(mountpoint)) // the worker has said why
	}
	return err
}

// clearDead takes away what a worker mounted that died before it served: nobody can have used it.
func clearDead(mountpoint string) error {
	m, err := viewfs.MountAt(mountpoint)
	if err != nil || m == nil || m.FSType != viewfs.FSType {
		return err
	}
	return unix.Unmount(mountpoint, unix.MNT_DETACH)
}

// detach lets go of the starter's terminal. What would be written there, a panic's last words, goes to the log.
func detach(log *slog.Logger, logFile *os.File) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		log.Warn("cannot let go of the terminal", "error", err)
		return
	}
	defer null.Close()
	last := null
	if logFile != nil {
		last = logFile
	}
	_ = unix.Dup2(int(null.Fd()), 0)
	_ = unix.Dup2(int(last.Fd()), 1)
	_ = unix.Dup2(int(last.Fd()), 2)
}

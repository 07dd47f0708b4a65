package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
	"imgward/fs/keeper"
)

// newKeeper is the daemon's parent half: it holds descriptors and starts workers (imgward/fs/keeper).
func newKeeper() *cobra.Command {
	var f mountFlags
	var adopt, resume int
	c := &cobra.Command{
		Use:    "keeper DIR",
		Hidden: true,
		Args:   exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if resume != 0 {
				estate, err := keeper.Inherited(resume)
				if err != nil {
					return err // the worker starts another
				}
				return runKeeper(&f, args[0], &origin{estate: estate})
			}
			unix.CloseOnExec(starterFd)
			return runKeeper(&f, args[0], &origin{starter: os.NewFile(starterFd, "starter"), adopt: adopt})
		},
	}
	f.define(c)
	c.Flags().IntVar(&adopt, "adopt", 0, "watch the worker with this `PID`, which has lost its keeper")
	c.Flags().IntVar(&resume, "resume", 0, "go on as the keeper that this process was, from what descriptor `FD` says")
	return c
}

// origin is how a keeper comes to be: started for a new view, by a worker that has lost its own, or by itself, as another
// program.
type origin struct {
	starter *os.File // is told when the view serves; nil in the foreground
	adopt   int      // pid of a worker that serves already, or 0
	estate  *keeper.Estate
}

// starterFd is the pipe to `imgward mount`, which waits for it.
const starterFd = 3

// runKeeper keeps a view until it ends.
func runKeeper(f *mountFlags, mountpoint string, from *origin) error {
	debug.SetGCPercent(gcPercent)
	lock, err := control.MakeDir(mountpoint)
	if err != nil {
		return err
	}
	left := !from.serves()
	defer func() {
		if left { // a worker that lives on has its control socket in there
			os.RemoveAll(control.Dir(mountpoint))
		}
	}()
	defer lock.Close()
	log, logFile, err := openLog(f.logFile, from.foreground())
	if err != nil {
		return err
	}
	viewfs.RaiseFileLimit(log)
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	left = true // from here on it ends with its worker
	k := &keeper.Keeper{
		Log:    log,
		Binary: binary,
		Args:   append([]string{"worker"}, f.args(mountpoint)...),
		Socket: filepath.Join(control.Dir(mountpoint), "notify.sock"),
		Adopt:  from.adopt,
		Estate: from.estate,

		NoStandby: slices.Contains(f.options, noStandby),
		Ready: func() {
			if from.foreground() {
				fmt.Fprintf(os.Stderr, "imgward: %s is protected\n", mountpoint)
				return
			}
			detach(log, logFile)
			_, _ = from.starter.WriteString(readyWord)
			from.starter.Close()
		},
	}
	if !from.foreground() {
		k.Self = func(will int) []string {
			return append([]string{"keeper", "--resume", strconv.Itoa(will)}, f.args(mountpoint)...)
		}
	}
	err = k.Run()
	if !k.Served() {
		return errors.Join(errQuiet, clearDead(mountpoint)) // the worker has said why
	}
	return err
}

// serves says whether there is a worker already.
func (o *origin) serves() bool { return o.adopt != 0 || o.estate != nil }

func (o *origin) foreground() bool { return o.starter == nil && o.estate == nil }

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

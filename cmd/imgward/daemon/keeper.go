// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
	"imgward/fs/keeper"
	"imgward/fs/state"
	"imgward/guard"
)

// origin is how a keeper comes to be: started for a new view, by a worker that has lost its own, or by itself, as another
// program.
type origin struct {
	starter *os.File // is told when the view serves; nil in the foreground
	adopt   int      // pid of a worker that serves already, or 0
	resume  *keeper.Snapshot
	// terminal is set on one that resumes in the foreground.
	terminal bool
	covered  guard.ID // the directory that the view will cover; in the foreground
}

// starterFd is the pipe to `imgward mount`, which waits for it.
const starterFd = 3

// Origin says why a keeper was started. The zero value: by `imgward mount`, which waits for a word on starterFd.
type Origin struct {
	Adopt    int  // by the worker with this pid, which has lost its keeper
	Resume   int  // it goes on as the keeper that this process was, from what this descriptor says
	Terminal bool // and that one was in the foreground
}

// Keep runs the daemon's parent half until the view ends: it holds descriptors and starts workers (imgward/fs/keeper).
func (f *Flags) Keep(mountpoint string, o *Origin) error {
	if o.Resume == 0 {
		unix.CloseOnExec(starterFd)
		return f.keep(mountpoint, &origin{starter: os.NewFile(starterFd, "starter"), adopt: o.Adopt})
	}
	snapshot, err := keeper.ReadSnapshot(o.Resume)
	if err != nil {
		return err // the worker starts another
	}
	if dir := f.exposed(); dir != "" && o.Terminal {
		defer Conceal(dir)
	}
	return f.keep(mountpoint, &origin{resume: snapshot, terminal: o.Terminal})
}

// keep keeps a view until it ends.
func (f *Flags) keep(mountpoint string, from *origin) error {
	debug.SetGCPercent(30) // it makes little garbage, and should be small
	trimLater()
	lock, err := control.MakeDir(mountpoint)
	if err != nil {
		return err
	}
	defer lock.Close()
	left := !from.serves()
	defer func() {
		if left { // a worker that lives on has its control socket in there
			_ = os.RemoveAll(control.Dir(mountpoint)) // what stays there is empty, and the next view's
		}
	}()
	log, logFile, err := openLog(f.Log, from.foreground())
	if err != nil {
		return err
	}
	log = log.With("view", mountpoint)
	viewfs.RaiseFileLimit(log)
	preferToLive(log)
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
		Resume: from.resume,

		Pulse:     pulseOf(mountpoint),
		NoStandby: slices.Contains(f.Options, noStandby),
		Ready: func() {
			if from.foreground() {
				fmt.Fprintf(os.Stderr, "imgward: %s is protected\n", named(mountpoint))
				go tellBystanders(os.Stderr, mountpoint, from.covered) // the worker must not wait for it
				return
			}
			detach(log, logFile)
			_, _ = from.starter.WriteString(readyWord)
			from.starter.Close()
		},
	}
	k.Kept = func(name string, f *os.File) {
		if name == keptLog && logFile != nil {
			if err := replaceLog(logFile, f); err != nil {
				log.Warn("the keeper's log goes on in the file before", "error", err)
			}
		}
	}
	k.Self = func(snapshot int) []string {
		args := []string{"keeper", "--resume", strconv.Itoa(snapshot), fmt.Sprintf("--terminal=%t", from.foreground())}
		return append(args, f.args(mountpoint)...)
	}
	err = k.Run()
	if !k.Served() {
		return errors.Join(ErrSaid, clearDead(mountpoint)) // the worker has said why
	}
	return err
}

// pulseOf reads signs of life; the second layer's worker makes nobody wait, so it gives none.
func pulseOf(mountpoint string) func(*os.File) uint64 {
	if mountpoint == control.SecondName {
		return nil
	}
	return state.Beats
}

func named(mountpoint string) string {
	if mountpoint == control.SecondName {
		return "what virtual machines use beside any view"
	}
	return mountpoint
}

// preferToLive has the kernel end others first when memory runs out, as our unit does: VMs wait for whoever serves their
// disks. Workers inherit it.
func preferToLive(log *slog.Logger) {
	const score = "-900"
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(score), 0); err != nil {
		log.Info("the kernel may choose the daemon when memory runs out", "error", err)
	}
}

// serves says whether there is a worker already.
func (o *origin) serves() bool { return o.adopt != 0 || o.resume != nil }

func (o *origin) foreground() bool { return o.terminal || o.starter == nil && o.resume == nil }

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

// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
	"imgward/fs/keeper"
	"imgward/guard"
)

// worker serves one view.
type worker struct {
	mountpoint string
	flags      *Flags
	log        *slog.Logger
	logFile    *os.File // nil: the log goes elsewhere
	keeper     *keeper.Client
	guard      *guard.Guard
	session    *viewfs.Session
	keeperPID  atomic.Int64
	listener   *net.UnixListener
	orphaned   atomic.Bool
	leave      chan struct{} // closed when the worker is to make room for a successor
	leaving    atomic.Bool   // the keeper has been told
	policy     *policyFile
	mounts     *mountWatch
	changed    func()       // the guard's Config.Changed
	keepAll    func() error // gives a new keeper everything
	second     secondState  // in the place of session
}

// keptControl is the listening control socket: questions wait there while no worker serves.
const keptControl = "control"

// Serve is the daemon's serving half. It may die at any moment; its keeper starts the next.
func (f *Flags) Serve(mountpoint string) error {
	if mountpoint == control.SecondName {
		return f.serveSecond()
	}
	client, err := keeper.Connect(f.underSystemd())
	if err != nil {
		return fmt.Errorf("%w (use imgward mount)", err)
	}
	left, err := keeper.Receive(func(state *os.File) error { return f.couldServe(mountpoint, state) })
	if errors.Is(err, io.EOF) {
		return nil // a standby that was not needed
	}
	if err != nil {
		return err
	}
	kept := left.Files
	client.NoteKept(kept)
	w := &worker{mountpoint: mountpoint, flags: f, keeper: client, leave: make(chan struct{})}
	if w.logFile, err = w.takeLog(f.Foreground, kept); err != nil {
		return err
	}
	w.keeperPID.Store(keeperOf())
	if w.listener, err = w.listen(kept); err != nil {
		return err
	}
	if err := w.start(kept); err != nil {
		return err
	}
	defer w.guard.Close()
	w.keepAll = w.session.KeepAll
	w.signals() // these two before the keeper is told: it passes signals on from then on
	w.followPolicy()
	w.watchMounts()
	go w.control(w.listener)
	go w.watchKeeper()
	go w.watchdog()
	go w.renewKeeper()
	if err := client.Notify("READY=1", keeper.Pulsing, "STATUS=protecting "+mountpoint); err != nil {
		return fmt.Errorf("tell the keeper: %w", err)
	}
	if !f.Foreground {
		detach(w.log, w.logFile)
	}
	ended := make(chan struct{})
	trimLater()
	died := w.session.Died(left.Died)
	w.announce(left, died)
	go func() {
		w.session.Serve(died)
		close(ended)
	}()
	select {
	case <-ended:
		if t, err := w.session.MountsNow(); err == nil {
			w.mounts.look(endOf(stateOf(t, w.session.Dev, w.mountpoint)))
		}
		w.noteEnd()
		w.guard.Ended()
		return w.keeper.Notify("STOPPING=1")
	case <-w.leave:
		w.session.Leave()
		return ErrSaid // what is in flight the kernel sends again to the successor
	}
}

// noteEnd leaves word of an end that nobody asked for: the view is to be missed.
func (w *worker) noteEnd() {
	if !w.mounts.Gone() {
		return
	}
	if err := control.NoteGone(w.mountpoint); err != nil {
		w.log.Warn("nobody will miss the view", "error", err)
	}
}

// announce puts the view's begin, or a take-over, into the event stream.
func (w *worker) announce(left *keeper.Kept, died time.Time) {
	if _, ok := left.Files[keptControl]; !ok {
		mode := "daemon"
		if w.session.FS.Passthrough() {
			mode = "passthrough"
		}
		w.guard.Began(w.flags.Version, mode)
		return
	}
	var pause time.Duration
	if !died.IsZero() {
		pause = time.Since(died)
	}
	w.guard.TakenOver(w.session.FS.Stats().Generation+1, pause)
}

// listen makes the control socket, or takes over the predecessor's.
func (w *worker) listen(kept map[string]int) (*net.UnixListener, error) {
	if fd, ok := kept[keptControl]; ok {
		f := os.NewFile(uintptr(fd), keptControl)
		defer f.Close()
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("take over the control socket: %w", err)
		}
		return l.(*net.UnixListener), nil
	}
	l, err := control.Listen(control.Socket(w.mountpoint))
	if err != nil {
		return nil, fmt.Errorf("make the control socket: %w", err)
	}
	w.listener = l
	return l, w.keepControl()
}

// keepControl gives the keeper the control socket. Not through File(): that would make the socket blocking.
func (w *worker) keepControl() error {
	raw, err := w.listener.SyscallConn()
	if err != nil {
		return err
	}
	var keepErr error
	if err := raw.Control(func(fd uintptr) { keepErr = w.keeper.Keep(keptControl, int(fd)) }); err != nil {
		return err
	}
	return keepErr
}

// keeperOf is the pid of the keeper that started this worker.
func keeperOf() int64 { return int64(os.Getppid()) }

func (w *worker) start(kept map[string]int) (err error) {
	o, policyOption, err := w.flags.viewOptions(w.mountpoint)
	if err != nil {
		return err
	}
	w.session, err = viewfs.Start(context.Background(), &viewfs.Config{
		Options: o,
		Log:     w.log,
		Keeper:  w.keeper,
		Kept:    kept,
		NewGuard: func(host guard.Host) (guard.Checker, error) {
			return w.newGuard(host, policyOption, kept)
		},
	})
	return err
}

func (w *worker) control(l *net.UnixListener) {
	s := &control.Server{
		Mountpoint: w.mountpoint,
		Backing:    w.flags.Backing,
		Version:    w.flags.Version,
		KeeperPID:  w.keeperPID.Load,
		FS:         w.session.FS,
		Guard:      w.guard,
		Warnings:   w.warnings,
		Upgrade:    w.upgrade,
		Policy:     w.policy,
		Host:       w.policy.host,
		Tree:       w.session.Tree,
		Device:     w.session.Device(),
		Metrics:    w.metrics(),
		Ending:     w.mounts.expectEnd,
		Reachable:  w.mounts.Reachable,
	}
	if err := s.Serve(l); err != nil {
		w.log.Error("the control socket has failed", "error", err)
	}
}

// warnings is what `imgward status` adds.
func (w *worker) warnings() []string {
	return slices.Concat(w.mounts.warnings(), w.keeperWarnings(), w.evidenceWarnings())
}

func (w *worker) keeperWarnings() (list []string) {
	if w.orphaned.Load() {
		list = append(list, "the keeper is gone: protection would not survive the death of its daemon")
	}
	if w.keeper.Behind() {
		list = append(list, "the keeper does not answer: protection might not survive the death of its daemon")
	}
	return list
}

// watchMounts begins to follow what becomes of the view's mount.
func (w *worker) watchMounts() {
	w.mounts = &mountWatch{
		apart: map[string]string{},
		home:  w.mountpoint, dev: w.session.Dev, log: w.log, publish: w.guard.Events().Publish, vms: w.vmsInside, takeIn: w.takeIn, forgotten: w.forgotten,
		marker: filepath.Join(control.Dir(w.mountpoint), "unmounted"),
	}
	if err := control.NoteDevice(w.mountpoint, w.session.Dev); err != nil {
		w.log.Warn("the view will not be found elsewhere than on its mountpoint", "error", err)
	}
	if dir := w.flags.exposed(); dir != "" {
		if err := control.NoteExposed(w.mountpoint, dir); err != nil {
			w.log.Warn("imgward umount will not find what is exposed", "dir", dir, "error", err)
		}
	}
	if w.session.FS.Stats().Generation == 0 {
		_ = os.Remove(w.mounts.marker) // of a view whose keeper was killed
	}
	r, err := w.session.MountTable()
	if err != nil {
		w.log.Warn("the mount table cannot be watched", "error", err)
		return
	}
	go w.mounts.follow(context.Background(), r)
}

// vmsInside counts the VMMs that have files of the view open.
func (w *worker) vmsInside() int {
	pids := map[int]bool{}
	for _, h := range w.session.FS.Holders() {
		if h.Class == guard.ClassVMM {
			pids[h.PID] = true
		}
	}
	return len(pids)
}

// signals: SIGTERM ends the view if nobody holds files through it, else says who does.
func (w *worker) signals() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	signal.Ignore(os.Interrupt, syscall.SIGPIPE)
	go w.endWhenAsked(c)
}

func (w *worker) endWhenAsked(c <-chan os.Signal) {
	for range c {
		w.mounts.expectEnd()
		err := w.session.End()
		if err == nil {
			continue // Serve returns
		}
		if w.flags.Foreground {
			// systemd keeps: it asks for a restart, or ends the unit and will kill anyway. What is open stays open for
			// as long as it holds the descriptors.
			w.log.Info("asked to end; the view is in use, and left to a successor", "error", err)
			if err := w.makeRoom(""); err != nil {
				w.log.Error("no successor is started", "error", err)
			}
			continue
		}
		w.log.Warn("asked to end, but the view is in use; it stays", "error", err)
	}
}

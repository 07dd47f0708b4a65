package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
	"imgward/fs/keeper"
	"imgward/guard"
)

// newWorker is the daemon's serving half. It may die at any moment; its keeper starts the next.
func newWorker() *cobra.Command {
	var f mountFlags
	c := &cobra.Command{
		Use:    "worker DIR",
		Hidden: true,
		Args:   exactly(1),
		RunE:   func(_ *cobra.Command, args []string) error { return runWorker(&f, args[0]) },
	}
	f.define(c)
	return c
}

// worker serves one view.
type worker struct {
	mountpoint string
	flags      *mountFlags
	log        *slog.Logger
	keeper     *keeper.Client
	guard      *guard.Guard
	session    *viewfs.Session
	keeperPID  atomic.Int64
	listener   *net.UnixListener
	orphaned   atomic.Bool
	leave      chan struct{} // closed when the worker is to make room for a successor
	leaveOnce  sync.Once
	policy     *policyFile
}

// gcPercent has garbage collected early: there is little of it, and a daemon for the hosts of many VMs should be small.
const gcPercent = 30

// keptControl is the listening control socket: questions wait there while no worker serves.
const keptControl = "control"

func runWorker(f *mountFlags, mountpoint string) error {
	debug.SetGCPercent(gcPercent)
	client, err := keeper.Connect(f.underSystemd())
	if err != nil {
		return fmt.Errorf("%w (use imgward mount)", err)
	}
	legacy, err := keeper.Inherit(func(state *os.File) error { return f.couldServe(mountpoint, state) })
	if errors.Is(err, io.EOF) {
		return nil // a standby that was not needed
	}
	if err != nil {
		return err
	}
	kept := legacy.Kept
	client.Inherited(kept)
	log, logFile, err := openLog(f.logFile, f.foreground)
	if err != nil {
		return err
	}
	w := &worker{mountpoint: mountpoint, flags: f, log: log, keeper: client, leave: make(chan struct{})}
	w.keeperPID.Store(keeperOf())
	if w.listener, err = w.listen(kept); err != nil {
		return err
	}
	if err := w.start(kept); err != nil {
		return err
	}
	defer w.guard.Close()
	w.signals() // these two before the keeper is told: it passes signals on from then on
	w.followPolicy()
	go w.control(w.listener)
	go w.watchKeeper()
	go w.watchdog()
	go w.renewKeeper()
	if err := client.Notify("READY=1", "STATUS=protecting "+mountpoint); err != nil {
		return fmt.Errorf("tell the keeper: %w", err)
	}
	if !f.foreground {
		detach(log, logFile)
	}
	ended := make(chan struct{})
	w.announce(legacy)
	go func() {
		w.session.Serve(legacy.Died)
		close(ended)
	}()
	select {
	case <-ended:
		return w.keeper.Notify("STOPPING=1")
	case <-w.leave:
		return errQuiet // what is in flight the kernel sends again to the successor
	}
}

// announce puts a take-over into the event stream.
func (w *worker) announce(legacy *keeper.Legacy) {
	if _, ok := legacy.Kept[keptControl]; !ok {
		return
	}
	var pause time.Duration
	if !legacy.Died.IsZero() {
		pause = time.Since(legacy.Died)
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
		Backing:    w.flags.backing,
		Version:    version,
		KeeperPID:  w.keeperPID.Load,
		FS:         w.session.FS,
		Guard:      w.guard,
		Warnings:   w.warnings,
		Upgrade:    w.upgrade,
		Policy:     w.policy,
		Host:       w.policy.host,
		Tree:       w.session.Tree,
		Metrics:    w.metrics(),
	}
	if err := s.Serve(l); err != nil {
		w.log.Error("the control socket has failed", "error", err)
	}
}

// warnings is what `imgward status` adds.
func (w *worker) warnings() []string {
	var list []string
	if w.orphaned.Load() {
		list = append(list, "the keeper is gone: the view would not survive the death of its daemon")
	}
	if w.keeper.Behind() {
		list = append(list, "the keeper does not answer: the view might not survive the death of its daemon")
	}
	return append(list, w.evidenceWarnings()...)
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
		err := w.session.End()
		if err == nil {
			continue // Serve returns
		}
		if w.flags.foreground {
			// systemd keeps: it asks for a restart, or ends the unit and will kill anyway. What is open stays open for
			// as long as it holds the descriptors.
			w.log.Info("asked to end; the view is in use, and left to a successor", "error", err)
			w.makeRoom("")
			return
		}
		w.log.Warn("asked to end, but the view is in use; it stays", "error", err)
	}
}

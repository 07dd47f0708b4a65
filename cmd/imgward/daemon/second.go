// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	"imgward/fs/keeper"
	"imgward/guard"
	"imgward/guard/claims"
	"imgward/guard/lsm"
	"imgward/guard/policy"
	"imgward/guard/second"
)

// makers are the parts of the second layer.
func makers() []second.Maker { return []second.Maker{claims.Maker(), lsm.Maker((&viewsHere{}).list)} }

// Guard starts the second layer, and returns when it protects; in the foreground, when it has ended.
func (f *Flags) Guard() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can start the guard")
	}
	if err := f.absolutePaths(); err != nil {
		return err
	}
	if f.underSystemd() {
		lock, err := control.MakeDir(control.SecondName)
		if err != nil {
			return err
		}
		defer lock.Close()
		if err := f.serveSecond(); err != nil {
			return err // a successor finds there what it needs
		}
		return os.RemoveAll(control.Dir(control.SecondName))
	}
	if control.SecondRuns() {
		_ = control.Dial(control.SecondName).Stay(context.Background()) // one of another version ends when it is told to, as it did
		fmt.Fprintln(os.Stderr, "imgward: the guard runs already (imgward status)")
		return nil
	}
	if err := closeInherited(); err != nil {
		return err
	}
	if f.Foreground {
		return f.keep(control.SecondName, &origin{})
	}
	return f.daemonise(control.SecondName)
}

// secondState is what a successor of the second layer's worker reads first.
type secondState struct {
	state *os.File

	Version    int       `json:"version"`
	Generation uint64    `json:"generation"`
	Since      time.Time `json:"since"`
	ByMount    bool      `json:"by_mount"`
	pause      time.Duration
}

// keptState is that memory, by the name that the keeper knows (fs/keeper).
const keptState = "state"

// secondVersion is that of secondState. A program that does not know it leaves everything as it is.
const secondVersion = 1

func readSecondState(memory *os.File) (s secondState, err error) {
	text, err := io.ReadAll(io.NewSectionReader(memory, 0, 1<<16))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil && s.Version != secondVersion {
		err = fmt.Errorf("the state of the second layer has version %d, this program knows %d", s.Version, secondVersion)
	}
	s.state = memory
	return s, err
}

// takeState goes on with a predecessor's state, or begins one.
func (w *worker) takeState(left *keeper.Kept) (err error) {
	fd, ok := left.Files[keptState]
	if ok {
		w.second, err = readSecondState(os.NewFile(uintptr(fd), keptState))
		if !left.Died.IsZero() {
			w.second.pause = time.Since(left.Died)
		}
	} else {
		w.second = secondState{Version: secondVersion, Since: time.Now(), ByMount: w.flags.ByMount}
		fd, err = unix.MemfdCreate(keptState, unix.MFD_CLOEXEC)
		w.second.state = os.NewFile(uintptr(fd), keptState)
	}
	if err != nil {
		return err
	}
	w.second.Generation++
	err = w.second.write()
	if err == nil && !ok {
		err = w.keeper.Keep(keptState, fd)
	}
	return err
}

func (s *secondState) write() error {
	text, err := json.Marshal(s)
	if err == nil {
		_, err = s.state.WriteAt(append(text, '\n'), 0) // it never gets shorter
	}
	return err
}

// serveSecond is the serving half of the second layer's daemon.
func (f *Flags) serveSecond() error {
	client, err := keeper.Connect(f.underSystemd())
	if err != nil {
		return fmt.Errorf("%w (use imgward guard)", err)
	}
	left, err := keeper.Receive(func(state *os.File) error { return f.couldServe(control.SecondName, state) })
	if errors.Is(err, io.EOF) {
		return nil // a standby that was not needed
	}
	if err != nil {
		return err
	}
	client.NoteKept(left.Files)
	kick, stop := second.NewKick(), make(chan struct{}, 1)
	w := &worker{mountpoint: control.SecondName, flags: f, keeper: client, leave: make(chan struct{}), changed: kick.Soon}
	w.keeperPID.Store(keeperOf())
	driver, err := w.startSecond(left, kick)
	if err != nil {
		return err
	}
	defer w.guard.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan struct{})
	protects := make(chan struct{})
	go func() {
		driver.Run(ctx, func() { close(protects) })
		close(ended)
	}()
	<-protects
	if w.second.Generation == 1 {
		w.guard.Began(f.Version, driver.Active())
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	signal.Ignore(os.Interrupt, syscall.SIGPIPE)
	w.followPolicy()
	go w.controlSecond(driver, func() { stop <- struct{}{} })
	go w.watchKeeper()
	go w.renewKeeper()
	if err := client.Notify("READY=1", "STATUS=protecting block devices in use"); err != nil {
		return fmt.Errorf("tell the keeper: %w", err)
	}
	if !f.Foreground {
		detach(w.log, w.logFile)
	}
	select {
	case <-w.leave:
		cancel()
		<-ended
		return errors.Join(driver.Close(), ErrSaid)
	case <-stop:
	case <-term:
	}
	cancel()
	<-ended
	err = driver.Remove()
	w.guard.Ended()
	return errors.Join(err, client.Notify("STOPPING=1"))
}

// startSecond makes the guard and the layers, or goes on with a predecessor's.
func (w *worker) startSecond(left *keeper.Kept, kick second.Kick) (d *second.Driver, err error) {
	kept := left.Files
	if w.logFile, err = w.takeLog(w.flags.Foreground, kept); err != nil {
		return nil, err
	}
	if w.listener, err = w.listen(kept); err != nil {
		return nil, err
	}
	if err := w.takeState(left); err != nil {
		return nil, err
	}
	_, policyOption, err := w.flags.viewOptions(w.mountpoint)
	if err != nil {
		return nil, err
	}
	if _, err := w.newGuard(guard.HostDirect{}, policyOption, kept); err != nil {
		return nil, err
	}
	all := &keptFiles{Client: w.keeper, fds: map[string]int{keptState: int(w.second.state.Fd())}}
	for name, fd := range kept {
		if name != keptControl && name != keptLog {
			all.fds[name] = fd
		}
	}
	w.keepAll = all.again
	if w.second.Generation > 1 {
		w.guard.TakenOver(w.second.Generation, w.second.pause)
	}
	return second.Start(&second.Config{Log: w.log, Guard: w.guard, Keeper: all, Kept: kept}, makers(), kick), nil
}

func (w *worker) controlSecond(d *second.Driver, stop func()) {
	var byHand atomic.Bool
	s := &control.SecondServer{
		Guard: w.guard, Policy: w.policy, Driver: d, Upgrade: w.upgrade, Stop: stop,
		Stay: func() error {
			byHand.Store(true)
			state := w.second
			state.ByMount = false
			return state.write()
		},
		Describe: func() control.Second {
			return control.Second{
				ByMount:   w.second.ByMount && !byHand.Load(),
				KeeperPID: int(w.keeperPID.Load()), Version: w.flags.Version,
				Generation: w.second.Generation, Takeovers: w.second.Generation - 1, Since: w.second.Since, LastPause: w.second.pause.Seconds(),
				Warnings: append(w.keeperWarnings(), w.evidenceWarnings()...),
			}
		},
	}
	if err := s.Serve(w.listener); err != nil {
		w.log.Error("the control socket has failed", "error", err)
	}
}

// guardToo starts the second layer beside a view where its policy wants that: it says so, or leaves it to us and the kernel
// can have more than claims, or a domain uses a block device. A mount does not fail for it. One that runs is told of the view, to
// which all paths below the mountpoint lead from now on.
func (f *Flags) guardToo() {
	if control.SecondRuns() {
		ctx, cancel := context.WithTimeout(context.Background(), worthTimeout)
		defer cancel()
		_ = control.Dial(control.SecondName).Apply(ctx) // it looks by itself every few seconds
		return
	}
	p := f.policyOfMount()
	if p.Second == policy.SecondOff || p.Second == policy.SecondAuto && !worthwhile() {
		return
	}
	args := []string{"guard", "--" + ByMount, "--log", f.Log}
	for _, o := range f.Options {
		if _, ok := cutPolicy(o); ok {
			args = append(args, "-o", o)
		}
	}
	if out, err := exec.Command("/proc/self/exe", args...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "imgward: WARNING: the second layer is not there (imgward guard): %v\n%s", err, out)
	}
}

// worthwhile says whether there is something for the second layer to do on this host now. A device that is known only by the
// locks on it is another host's or namespace's, and theirs to guard.
func worthwhile() bool {
	for _, m := range makers() {
		if m.Loads != nil && m.Loads() {
			return true
		}
	}
	g, err := guard.New(guard.Config{Brief: true})
	if err != nil {
		return false
	}
	defer g.Close()
	ctx, cancel := context.WithTimeout(context.Background(), worthTimeout)
	defer cancel()
	for id, uses := range g.InUse(ctx) {
		if id.Dev == guard.BlockDevice && slices.ContainsFunc(uses, func(u guard.Use) bool { return u.Evidence != guard.EvidenceLock }) {
			return true
		}
	}
	return false
}

// worthTimeout is how long a mount waits for libvirt's files to say whether a block device is in use, or for the second layer.
const worthTimeout = 2 * time.Second

// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"imgward/cmd/imgward/control"
	"imgward/fs/state"
)

// TrialTimeout is how long a program may take to say that it could take over.
const TrialTimeout = 20 * time.Second

// upgrade lets another program take over the view. The keeper starts it beside this worker; when it has read the state
// and waits for its turn, this worker ends. If it cannot, this worker goes on. If it fails after all, when it is to serve,
// the keeper goes back to the program before.
func (w *worker) upgrade(ctx context.Context, binary string) error {
	if w.orphaned.Load() {
		return errors.New("the keeper is gone, so nobody would start a successor; this worker goes on")
	}
	try := w.keeper.Try
	if w.flags.underSystemd() {
		try = func(binary string) error { return w.trial(ctx, binary) }
	}
	if err := try(binary); err != nil {
		return fmt.Errorf("%s could not take over: %w; this worker goes on", binary, err)
	}
	return w.makeRoom(binary)
}

// trial runs a program to find out whether it could take over. systemd has no successor started beside the worker.
func (w *worker) trial(ctx context.Context, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, TrialTimeout)
	defer cancel()
	trial := exec.CommandContext(ctx, binary, append([]string{"trial"}, w.flags.args(w.mountpoint)...)...)
	trial.ExtraFiles = []*os.File{w.state()}
	out, err := trial.CombinedOutput()
	switch {
	case err != nil:
		return fmt.Errorf("%s (%w)", strings.TrimSpace(string(out)), err)
	case string(out) != trialPassed:
		return errors.New("it is no imgward")
	}
	return nil
}

// state is the memory that a successor reads first.
func (w *worker) state() *os.File {
	if w.session == nil {
		return w.second.state
	}
	return w.session.State()
}

// makeRoom ends this worker, not the view. The keeper starts the successor.
func (w *worker) makeRoom(binary string) error {
	if w.leaving.Swap(true) {
		return nil
	}
	if err := w.keeper.Leave(binary); err != nil {
		w.leaving.Store(false)
		return fmt.Errorf("tell the keeper that a successor is to start: %w", err)
	}
	// The answer to whoever asked is on its way.
	time.AfterFunc(leaveAfter, func() { close(w.leave) })
	return nil
}

const leaveAfter = 20 * time.Millisecond

// Trial is what a program is run with to find out whether it could take over: it reads the state of the worker that
// serves, changes nothing, and says so on out.
func (f *Flags) Trial(mountpoint string, out io.Writer) error {
	if err := f.couldServe(mountpoint, os.NewFile(trialFd, "state")); err != nil {
		return err
	}
	_, err := fmt.Fprint(out, trialPassed)
	return err
}

// couldServe says why this program could not take over a view with this state; it changes nothing.
func (f *Flags) couldServe(mountpoint string, memory *os.File) error {
	if mountpoint == control.SecondName {
		_, err := readSecondState(memory)
		return err
	}
	if _, _, err := f.viewOptions(mountpoint); err != nil {
		return err
	}
	region, err := state.Open(memory)
	if err != nil {
		return err
	}
	return region.Close()
}

// trialFd is where the state memory is passed to a trial.
const trialFd = 3

// trialPassed is what a program says that could take over.
const trialPassed = "imgward could take over\n"

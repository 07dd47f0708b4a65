package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/fs/state"
)

// trialTimeout is how long a program may take to say that it could take over.
const trialTimeout = 20 * time.Second

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
	w.makeRoom(binary)
	return nil
}

// trial runs a program to find out whether it could take over. systemd has no successor started beside the worker.
func (w *worker) trial(ctx context.Context, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	trial := exec.CommandContext(ctx, binary, append([]string{"trial"}, w.flags.args(w.mountpoint)...)...)
	trial.ExtraFiles = []*os.File{w.session.State()}
	out, err := trial.CombinedOutput()
	switch {
	case err != nil:
		return fmt.Errorf("%s (%w)", strings.TrimSpace(string(out)), err)
	case string(out) != trialPassed:
		return errors.New("it is no imgward")
	}
	return nil
}

// makeRoom ends this worker, not the view. The keeper starts the successor.
func (w *worker) makeRoom(binary string) {
	w.leaveOnce.Do(func() {
		if err := w.keeper.Leave(binary); err != nil {
			w.log.Error("cannot tell the keeper that a successor is to start", "error", err)
			return
		}
		// The answer to whoever asked is on its way.
		time.AfterFunc(leaveAfter, func() { close(w.leave) })
	})
}

const leaveAfter = 20 * time.Millisecond

// newTrial is what a program is run with to find out whether it could take over: it reads the state of the worker that
// serves, and changes nothing.
func newTrial() *cobra.Command {
	var f mountFlags
	c := &cobra.Command{
		Use:    "trial DIR",
		Hidden: true,
		Args:   exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.couldServe(args[0], os.NewFile(trialFd, "state")); err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), trialPassed)
			return nil
		},
	}
	f.define(c)
	return c
}

// couldServe says why this program could not take over a view with this state; it changes nothing.
func (f *mountFlags) couldServe(mountpoint string, memory *os.File) error {
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

func newUpgrade() *cobra.Command {
	var binary string
	c := &cobra.Command{
		Use:   "upgrade [--binary FILE] [DIR]",
		Short: "Let a new program take over a view, or all of them",
		Long: `Let the installed imgward, or FILE, take over the view on DIR (default: all
views) from the one that serves. The new program is started and ready before
the present one lets go; if it could not take over, that goes on and says why. VMs notice a pause of
some milliseconds in what is not plain reading and writing.
` + exitHelp,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			views, err := chosenViews(args)
			if err != nil {
				return err
			}
			if binary, err = upgradeBinary(binary); err != nil {
				return err
			}
			for _, v := range views {
				if err := handOver(cmd, v, binary); err != nil {
					return fmt.Errorf("%s: %w", v, err)
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&binary, "binary", "", "the program to take over (default: this one)")
	return c
}

// upgradeBinary is the path of the program that is to take over: as it is installed, not as this process has it open.
func upgradeBinary(path string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		return strings.TrimSuffix(self, " (deleted)"), err
	}
	return resolve(path)
}

// handOver asks for the upgrade and waits until the successor serves.
func handOver(cmd *cobra.Command, mountpoint, binary string) error {
	client := control.Dial(mountpoint)
	before, err := client.View(cmd.Context())
	if err != nil {
		return err
	}
	if err := client.Upgrade(cmd.Context(), binary); err != nil {
		return err
	}
	for deadline := time.Now().Add(trialTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		after, err := client.View(cmd.Context())
		if err != nil || after.Generation == before.Generation {
			continue
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s (pid %d) took over from %s (pid %d) after %.0f ms\n",
			mountpoint, after.Version, after.PID, before.Version, before.PID, after.LastPause*1000)
		return nil
	}
	return errors.New("no successor has begun to serve; see the log")
}

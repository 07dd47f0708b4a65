// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/daemon"
)

func newUpgrade() *cobra.Command {
	var binary string
	c := &cobra.Command{
		Use:   "upgrade [--binary FILE] [DIR]",
		Short: "Let the installed imgward take over, under running VMs",
		Long: `Let the installed imgward, or FILE, take over the view on DIR (default: all
views) from the one that serves. The new program is started and ready before
the present one lets go. If the new one cannot take over, the present one goes
on and says why. VMs notice nothing but a pause of some milliseconds, and that
only where they do more than read and write.
` + exitHelp,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			views, err := some(chosenDaemons(args))
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
	return daemon.Resolve(path)
}

// handOver asks for the upgrade and waits until the successor serves.
func handOver(cmd *cobra.Command, mountpoint, binary string) error {
	client := control.Dial(mountpoint)
	before, err := client.View(cmd.Context())
	if err != nil {
		return err
	}
	err = client.Upgrade(cmd.Context(), binary)
	if control.Lost(err) { // the worker died; to upgrade twice does no harm
		err = client.Upgrade(cmd.Context(), binary)
	}
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(daemon.TrialTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		after, err := client.View(cmd.Context())
		if err != nil || after.Generation == before.Generation {
			continue
		}
		if err := answers(mountpoint); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s (pid %d) took over from %s (pid %d)%s\n",
			mountpoint, after.Version, after.PID, before.Version, before.PID, afterPause(after.LastPause))
		return nil
	}
	return errors.New("no successor has begun to serve; see the log")
}

func afterPause(seconds float64) string {
	if seconds == 0 {
		return "" // from a worker that did not note when it left
	}
	return fmt.Sprintf(" after %.0f ms", seconds*1000)
}

// answers waits until the view itself has answered a request: who answers on the control socket may yet serve nobody.
func answers(mountpoint string) error {
	if mountpoint == control.SecondName {
		return nil
	}
	done := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		done <- unix.Statfs(mountpoint, &st) // which the kernel does not answer itself
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(daemon.TrialTimeout):
		return errors.New("the successor has begun, but answers no request; see the log")
	}
}

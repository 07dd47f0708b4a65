// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/guard/lsm"
)

func newGuard() *cobra.Command {
	f := newFlags()
	c := &cobra.Command{
		Use:   "guard [-f] [-o policy=FILE]",
		Short: "Protect block devices that VMs use, and what no view covers",
		Long: `Start the second layer, which needs no mount: block devices that virtual
machines use are held so that mkfs, wipefs, mkswap, pvcreate and mount fail
before they write anything. Where the kernel has BPF LSM, it refuses dd, rm, mv
and the like by itself, on files too, whatever way leads to them, and goes on
when imgward is killed. It goes to the background once it protects.
imgward status shows what it holds; imgward guard stop ends it.
` + exitHelp,
		Args: exactly(0),
		RunE: func(*cobra.Command, []string) error { return f.Guard() },
	}
	c.Flags().StringSliceVarP(&f.Options, "options", "o", nil, "`OPTIONS`: policy=FILE")
	c.Flags().StringVar(&f.Log, "log", "", "append the log to `FILE` (default: as imgward mount)")
	c.Flags().BoolVarP(&f.Foreground, "foreground", "f", false, "stay in the foreground")
	c.AddCommand(&cobra.Command{
		Use:   "stop",
		Short: "End the second layer, and leave nothing of it",
		Args:  exactly(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return stopGuard(cmd) },
	})
	return c
}

func stopGuard(cmd *cobra.Command) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can stop the guard")
	}
	if !control.SecondRuns() {
		if !lsm.Loaded(lsm.DefaultDir) {
			return errors.New("the guard does not run")
		}
		return lsm.Remove(lsm.DefaultDir) // its processes were killed
	}
	if err := control.Dial(control.SecondName).Stop(cmd.Context()); err != nil {
		return err
	}
	if err := control.WaitGone(cmd.Context(), control.SecondName); err != nil {
		return fmt.Errorf("the guard has let go of everything, but does not end: %w", err)
	}
	return nil
}

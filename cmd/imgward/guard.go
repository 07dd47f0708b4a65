// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/daemon"
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
	defineByMount(c, f)
	c.AddCommand(&cobra.Command{
		Use:   "stop",
		Short: "End the second layer, and leave nothing of it",
		Args:  exactly(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return stopGuard(cmd) },
	})
	return c
}

func defineByMount(c *cobra.Command, f *daemon.Flags) {
	c.Flags().BoolVar(&f.ByMount, daemon.ByMount, false, "a mount starts it: the last umount ends it")
	_ = c.Flags().MarkHidden(daemon.ByMount) // it fails for a flag that is not there
}

// endGuardToo ends, after the last umount, the guard that a mount started: nobody has asked for it by itself. While it has something to
// protect it goes on.
func endGuardToo(cmd *cobra.Command) {
	views, _, err := mountedViews()
	if err != nil || len(views) > 0 || !control.SecondRuns() {
		return
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), guardWait)
	defer cancel()
	c, s := control.Dial(control.SecondName), control.Second{}
	err = c.Apply(ctx) // or it does not know yet what has ended
	if err == nil {
		err = c.Get(ctx, "status", nil, func(line []byte) error {
			if s.Type != "" {
				return nil
			}
			return json.Unmarshal(line, &s)
		})
	}
	switch {
	case err != nil || !s.ByMount:
	case s.Images == 0:
		if err := stopGuard(cmd); err != nil {
			fmt.Fprintln(os.Stderr, "imgward:", err)
		}
	default:
		fmt.Fprintf(os.Stderr, "imgward: the guard goes on, for images are in use: %d (imgward guard stop ends it)\n", s.Images)
	}
}

// guardWait is how long an umount waits for the guard.
const guardWait = 5 * time.Second

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

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"imgward/cmd/imgward/daemon"
)

// newKeeper is the daemon's parent half.
func newKeeper() *cobra.Command {
	f := newFlags()
	var from daemon.Origin
	c := &cobra.Command{
		Use:    "keeper DIR",
		Hidden: true,
		Args:   exactly(1),
		RunE:   func(_ *cobra.Command, args []string) error { return f.Keep(args[0], &from) },
	}
	defineMountFlags(c, f)
	c.Flags().IntVar(&from.Adopt, "adopt", 0, "watch the worker with this `PID`, which has lost its keeper")
	c.Flags().IntVar(&from.Resume, "resume", 0, "go on as the keeper that this process was, from what descriptor `FD` says")
	c.Flags().BoolVar(&from.Terminal, "terminal", false, "that keeper was in the foreground")
	return c
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
)

// newWorker is the daemon's serving half.
func newWorker() *cobra.Command {
	f := newFlags()
	c := &cobra.Command{
		Use:    "worker DIR",
		Hidden: true,
		Args:   exactly(1),
		RunE:   func(_ *cobra.Command, args []string) error { return f.Serve(args[0]) },
	}
	defineMountFlags(c, f)
	return c
}

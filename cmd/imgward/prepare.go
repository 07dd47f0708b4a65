// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
)

// newPrepare is a service's step before the worker (ExecStartPre=+ in imgward@.service).
func newPrepare() *cobra.Command {
	f := newFlags()
	c := &cobra.Command{
		Use:    "prepare [-o OPTIONS] [--backing DIR] DIR",
		Short:  "Mount a view for a service's worker",
		Hidden: true,
		Args:   exactly(1),
		RunE:   func(_ *cobra.Command, args []string) error { return f.Prepare(args[0]) },
	}
	defineMountFlags(c, f)
	return c
}

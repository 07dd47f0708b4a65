// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
)

// newTrial is what a program is run with to find out whether it could take over.
func newTrial() *cobra.Command {
	f := newFlags()
	c := &cobra.Command{
		Use:    "trial DIR",
		Hidden: true,
		Args:   exactly(1),
		RunE:   func(cmd *cobra.Command, args []string) error { return f.Trial(args[0], cmd.OutOrStdout()) },
	}
	defineMountFlags(c, f)
	return c
}

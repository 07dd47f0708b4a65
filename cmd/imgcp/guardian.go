// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"imgward/copy/domain/libvirtd"
	"imgward/copy/live"
)

// guardianName is the hidden subcommand that --live runs in a process of its own.
const guardianName = "live-guardian"

// newGuardian outlives whatever ends its parent: it sees to it that suspended machines go on.
func newGuardian() *cobra.Command {
	return &cobra.Command{
		Use: guardianName, Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGTSTP)
			conn := libvirtd.New("")
			defer conn.Close()
			if live.Guard(os.Stdin, os.Stdout, conn) != nil {
				return errReported
			}
			return nil
		},
	}
}

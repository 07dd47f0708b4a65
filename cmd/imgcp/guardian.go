package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

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
			if live.Guard(os.Stdin, os.Stdout) != nil {
				return errReported
			}
			return nil
		},
	}
}

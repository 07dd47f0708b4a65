// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"imgward/cmd/output"
)

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	out := &output.Checked{Writer: os.Stdout}
	root.SetOut(out)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.Err
	}
	if near := mistyped(root, args); err != nil && near != "" {
		err = fmt.Errorf("%w; did you mean imgcp %s?", err, near)
	}
	if err != nil && !errors.Is(err, errReported) {
		fmt.Fprintf(os.Stderr, "imgcp: %s\n", printable(err.Error()))
	}
	return exitCode(err)
}

// mistyped is the subcommand that the first argument may have been meant as, if there is no file of that name.
func mistyped(root *cobra.Command, args []string) string {
	if len(args) == 0 {
		return ""
	}
	if _, err := os.Lstat(args[0]); err == nil {
		return ""
	}
	root.SuggestionsMinimumDistance = 2
	return strings.Join(root.SuggestionsFor(args[0]), " or ")
}

// errReported marks an error whose message the person has seen already.
var errReported = errors.New("reported")

func newRoot() *cobra.Command {
	c := newCopyCommand()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if strings.Contains(err.Error(), "shorthand flag: 'O'") || strings.Contains(err.Error(), "shorthand flag: 'f'") {
			err = fmt.Errorf("%w; imgcp copies an image as it is. To change its format: qemu-img convert", err)
		}
		return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	c.SetHelpFunc(func(cmd *cobra.Command, _ []string) { fmt.Fprint(cmd.OutOrStdout(), helpText(cmd)) })
	complete(c)
	c.AddCommand(newVerifyCommand(), newDDCommand(), newDomainCommand(), newRestoreCommand(), newReportCommand(), newGuardian())
	return c
}

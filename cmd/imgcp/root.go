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
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = out.Err
	}
	if err != nil && cmd == root && len(args) > 0 {
		if near := mistyped(root, args[0]); near != "" {
			err = fmt.Errorf("%w; did you mean imgcp %s?", err, near)
		}
	}
	if err != nil && !errors.Is(err, errReported) {
		fmt.Fprintf(os.Stderr, "imgcp: %s\n", printable(err.Error()))
	}
	return exitCode(err)
}

// mistyped is the subcommand that a first argument may have been meant as, if there is no file of that name. Shorter words than
// these are near to dd, whatever they are.
func mistyped(root *cobra.Command, word string) string {
	if len(word) < 4 || word[0] == '-' {
		return ""
	}
	if _, err := os.Lstat(word); err == nil {
		return ""
	}
	root.SuggestionsMinimumDistance = 2
	return strings.Join(root.SuggestionsFor(word), " or ")
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

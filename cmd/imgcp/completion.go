// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgward/copy/dd"
)

// flagValues are what the shell offers after an option and an equals sign, and what check allows.
var flagValues = map[string][]string{
	"overwrite": {"replace", "in-place"},
	"live":      {"suspend-reflink", "backup", "torn"},
	"on-error":  {"stop", "zero", "retry"},
	"sync":      {"full", "none"},
	"reflink":   {"auto", "always", "never"},
	"direct":    {"auto", "always", "never"},
	"sparse":    {"auto", "always", "never"},
	"progress":  {"auto", "always", "never"},
}

// complete teaches the shell the values of options.
func complete(c *cobra.Command) {
	for name, values := range flagValues {
		// The error says that there is no such option, which the test of this table would notice.
		_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

// completeImage offers files, for imgcp's first argument is a file more often than a subcommand. The shell does that by itself
// where no subcommand begins like it; else the files are named here.
func completeImage(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || typed == "" || !slices.ContainsFunc(c.Commands(), func(sub *cobra.Command) bool {
		return sub.IsAvailableCommand() && strings.HasPrefix(sub.Name(), typed)
	}) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	files, _ := filepath.Glob(typed + "*") // typed is the beginning of a subcommand, so there is no pattern in it
	return files, cobra.ShellCompDirectiveDefault
}

// completeOperand offers dd's operands, then the names in a list, then files.
func completeOperand(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	name, value, ok := strings.Cut(typed, "=")
	if !ok {
		return dd.OperandNames(), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
	if name == "if" || name == "of" {
		return nil, cobra.ShellCompDirectiveDefault
	}
	done := value[:strings.LastIndexByte(value, ',')+1]
	var offers []string
	for _, v := range dd.OperandValues(name) {
		if !slices.Contains(strings.Split(done, ","), v) {
			offers = append(offers, name+"="+done+v)
		}
	}
	return offers, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

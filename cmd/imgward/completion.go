// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/guard"
	"imgward/guard/policy"
)

// complete teaches the shell each command's own words. What no function is for, cobra leaves to the shell: names of files.
func complete(root *cobra.Command) {
	words := map[string]cobra.CompletionFunc{
		"check":          operationThenFile,
		"mount":          directories,
		"umount":         mountpoints,
		"status":         mountpoints,
		"events":         mountpoints,
		"top":            mountpoints,
		"graph":          mountpoints,
		"upgrade":        mountpoints,
		"policy show":    mountpoints,
		"policy reload":  mountpoints,
		"metrics":        cobra.NoFileCompletions,
		"doctor":         cobra.NoFileCompletions,
		"version":        cobra.NoFileCompletions,
		"allow --op":     list("truncate", "write", "unlink", "rename", "set-flags", "all"),
		"allow --for":    cobra.FixedCompletions([]string{"2m", "10m", "1h"}, cobra.ShellCompDirectiveNoFileComp),
		"allow --reason": cobra.NoFileCompletions,
		"graph --format": cobra.FixedCompletions([]string{"tree", "dot", "svg"}, cobra.ShellCompDirectiveNoFileComp),
		"mount --options": list("policy=", "nopassthrough", "nostandby", "metrics=127.0.0.1:", "remount", "ro", "nosuid", "nodev", "noexec",
			"noatime", "relatime"),
		"mount --backing":        directories,
		"mount --expose-backing": directories,
		"policy show --preset":   cobra.FixedCompletions(policy.Presets(), cobra.ShellCompDirectiveNoFileComp),
	}
	for path, f := range words {
		fields := strings.Fields(path)
		flag, isFlag := strings.CutPrefix(fields[len(fields)-1], "--")
		if isFlag {
			fields = fields[:len(fields)-1]
		}
		c, _, err := root.Find(fields)
		switch {
		case err != nil || c == root:
			panic("completion of a command that there is not: " + path)
		case !isFlag:
			c.ValidArgsFunction = f
		default:
			if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
				panic(err)
			}
		}
	}
}

func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// mountpoints offers the views that begin as what was typed; where there are none, or they may not be seen, directories.
func mountpoints(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	views, _ := control.Views()
	views = slices.DeleteFunc(views, func(v string) bool { return !strings.HasPrefix(v, typed) })
	if len(views) == 0 {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	return views, cobra.ShellCompDirectiveNoFileComp
}

func operationThenFile(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var ops []string
	for _, op := range guard.Ops() {
		ops = append(ops, string(op))
	}
	return ops, cobra.ShellCompDirectiveNoFileComp
}

// list completes words that are separated by commas, each of them once.
func list(words ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		done := typed[:strings.LastIndexByte(typed, ',')+1]
		var offers []string
		for _, w := range words {
			if !slices.Contains(strings.Split(done, ","), w) {
				offers = append(offers, done+w)
			}
		}
		return offers, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// helpWidth is the width of a terminal, in columns, that help is written for.
const helpWidth = "80"

// addCommands adds the commands, in groups by what an administrator wants to do.
func addCommands(root *cobra.Command) {
	add := func(id, title string, commands ...*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: id, Title: title})
		for _, c := range commands {
			c.GroupID = id
		}
		root.AddCommand(commands...)
	}
	add("protect", "Protect:", newMount(), newUmount(), newGuard())
	add("look", "Look:", newStatus(), newWho(), newCheck(), newEvents(), newGraph(), newTop(), newDoctor())
	add("change", "Change what is allowed:", newAllow(), newPolicy())
	add("run", "Run and upgrade:", newUpgrade(), newMetrics(), newVersion())
	root.SetHelpCommandGroupID("run")
	root.SetCompletionCommandGroupID("run")
	// What imgward and service managers start; hidden.
	root.AddCommand(newKeeper(), newTrial(), newWorker(), newPrepare(), newConclude(), newTakeIn())
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages ", "Flags.FlagUsagesWrapped "+helpWidth+" "))
}

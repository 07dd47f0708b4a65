// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	viewfs "imgward/fs"
)

// newTakeIn is what a worker starts for a file system that was mounted below its view: whoever names a path of the view may
// have to wait for that worker.
func newTakeIn() *cobra.Command {
	return &cobra.Command{
		Use:    "take-in VIEW DIR",
		Hidden: true,
		Args:   exactly(2),
		RunE:   func(_ *cobra.Command, args []string) error { return viewfs.TakeIn(treeFd, args[0], args[1]) },
	}
}

// treeFd is where the backing tree is passed.
const treeFd = 3

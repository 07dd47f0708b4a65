// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"imgward/cmd/imgward/daemon"
	viewfs "imgward/fs"
)

// newConclude is a service's step at its end (ExecStop=+): umount, outside of the service's sandbox. The view may be gone,
// as after `imgward umount`; in use, it says by whom.
func newConclude() *cobra.Command {
	return &cobra.Command{
		Use:    "conclude DIR",
		Short:  "Unmount a service's view",
		Hidden: true,
		Args:   exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := daemon.EnterHost(); err != nil {
				return err
			}
			m, err := viewfs.MountAt(args[0])
			if err != nil || m == nil || m.FSType != viewfs.FSType {
				return err
			}
			return umount(cmd, args[0], false)
		},
	}
}

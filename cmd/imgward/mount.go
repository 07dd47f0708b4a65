// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/daemon"
)

func newMount() *cobra.Command {
	f := newFlags()
	var expose string
	c := &cobra.Command{
		Use:                   "mount [OPTION]… DIR",
		DisableFlagsInUseLine: true,
		Short:                 "Protect a directory in place, or show another one there",
		Long: `Mount the view over DIR. All programs then go through it, and it stays mounted
in the background. With --backing, DIR shows another directory instead.

OPTIONS are separated by commas:
  policy=FILE              instead of /etc/imgward/policy.toml
  metrics=127.0.0.1:PORT   Prometheus metrics, for local scrapers
  nopassthrough            reads and writes go through the daemon
  nostandby                no second process is kept ready to take over: saves
                           some MiB, and a take-over takes a little longer
  ro, nosuid, …            as for mount(8); without them the view has the mount
                           flags of the directory that it shows
` + exitHelp,
		Example: `  imgward mount /var/lib/libvirt/images
  imgward mount --backing /srv/images /mnt/images
  imgward mount -o ro,nosuid /srv/templates`,
		Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if expose != "" {
				dir, rw := strings.CutSuffix(expose, ",rw")
				if rw {
					return usageError{errors.New("--expose-backing is read-only: what is written there would bypass the view")}
				}
				f.Options = append(f.Options, "expose-backing="+strings.TrimSuffix(dir, ",ro"))
			}
			return f.Mount(args[0])
		},
	}
	c.Flags().StringVar(&expose, "expose-backing", "", "show the directory below the view read-only on `DIR`, for backups that stay on one file system")
	defineMountFlags(c, f)
	c.Flags().BoolVarP(&f.Foreground, "foreground", "f", false, "stay in the foreground")
	return c
}

func newFlags() *daemon.Flags { return &daemon.Flags{Version: version} }

// defineMountFlags defines what mount, and all that it starts, are called with.
func defineMountFlags(c *cobra.Command, f *daemon.Flags) {
	defineByMount(c, f) // it is among the arguments of a keeper and a worker
	c.Flags().StringSliceVarP(&f.Options, "options", "o", nil, "mount `OPTIONS`")
	c.Flags().StringVar(&f.Backing, "backing", "", "the `DIR`ectory to show (default: the mountpoint itself)")
	c.Flags().StringVar(&f.Log, "log", "", "append the log to `FILE` (default: the journal, or "+daemon.DefaultLog+")")
}

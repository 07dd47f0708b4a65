// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
	"imgward/fs/mounttable"
)

// umountAll ends all views, or none if anybody holds one of them.
func umountAll(cmd *cobra.Command, lazy bool) error {
	views, others, err := mountedViews()
	if err != nil {
		return err
	}
	if len(views) == 0 {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "no imgward view is mounted")
		return err
	}
	dead := map[int]bool{}
	if !lazy {
		if dead, err = allFree(cmd.Context(), views); err != nil {
			return err
		}
	}
	for _, m := range others {
		if err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
			return fmt.Errorf("umount %s: %w", m.Mountpoint, err)
		}
	}
	for _, m := range views {
		if err := umount(cmd, m.Mountpoint, lazy || dead[m.ID]); err != nil {
			return err
		}
	}
	return nil
}

// mountedViews lists one mount of each view of this mount namespace, the one that was mounted last first, and further
// mounts of the same views (mount --bind).
func mountedViews() (views, others []*mounttable.Mount, err error) {
	t, err := mounttable.Now()
	if err != nil {
		return nil, nil, err
	}
	all := slices.Clone(t.All())
	slices.Reverse(all)
	for _, m := range all {
		if m.FSType != viewfs.FSType {
			continue
		}
		home := ""
		if places, err := control.Places(); err == nil {
			for _, p := range places {
				if p.At != nil && mounttable.Device(p.At) == mounttable.Device(m) {
					home = p.At.Mountpoint
				}
			}
		}
		if first := t.Find(mounttable.Device(m), home); first != nil && first.ID != m.ID {
			others = append(others, m)
		} else {
			views = append(views, m)
		}
	}
	return views, others, nil
}

// allFree says who holds which of the views; an error if anybody does. Those that nobody serves are held by nobody.
func allFree(ctx context.Context, views []*mounttable.Mount) (dead map[int]bool, err error) {
	held := 0
	dead = map[int]bool{}
	for _, m := range views {
		list, err := holders(ctx, daemonOf(m.Mountpoint))
		if control.Dead(err) {
			dead[m.ID] = true
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w; no view has been unmounted", err)
		}
		list = append(list, bystanders(mounttable.Device(m))...)
		if len(list) == 0 {
			continue
		}
		held++
		fmt.Fprintf(os.Stderr, "%s:\n", shown(m.Mountpoint))
		for _, h := range list {
			fmt.Fprintf(os.Stderr, "  %s\n", h)
		}
	}
	if held > 0 {
		return nil, fmt.Errorf("%d of %d views are %w: end those processes, or have them leave; no view has been unmounted", held, len(views), errInUse)
	}
	return dead, nil
}

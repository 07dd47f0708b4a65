// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/daemon"
	viewfs "imgward/fs"
	"imgward/fs/mounttable"
)

func newUmount() *cobra.Command {
	var lazy, all bool
	c := &cobra.Command{
		Use:   "umount [--lazy] DIR | --all",
		Short: "End the protection of a directory, or of all",
		Long: `End the view on DIR. While anybody holds files through it, it is refused and
says who; --lazy takes the view away from the name space all the same, and
serves those who hold files until they let go. New opens then go to the bare
directory, unprotected. --all ends all views, or none if anybody holds one.
` + exitHelp,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all == (len(args) == 1):
				return usageError{errors.New("umount: either DIR or --all")}
			case all:
				return umountAll(cmd, lazy)
			}
			return umount(cmd, args[0], lazy)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "end all views, or none")
	c.Flags().BoolVar(&lazy, "lazy", false, "take it away now; serve present holders to their end")
	return c
}

func umount(cmd *cobra.Command, dir string, lazy bool) error {
	mountpoint, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if p, err := filepath.EvalSymlinks(mountpoint); err == nil {
		mountpoint = p
	}
	m, err := viewAt(mountpoint)
	if err != nil && control.Forget(mountpoint) {
		fmt.Fprintf(os.Stderr, "imgward: the view on %s had been unmounted by others; it is no longer reported as gone\n", mountpoint)
		return nil
	}
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can unmount a view")
	}
	name := daemonOf(mountpoint)
	exposed := control.Exposed(name) // the daemon takes the word of it along
	if lazy || viewfs.Dead(mountpoint) {
		err = umountLazily(cmd.Context(), name, mountpoint)
	} else {
		err = umountFree(cmd.Context(), name, m)
	}
	if err != nil {
		return err
	}
	if exposed != "" {
		daemon.Conceal(exposed)
	}
	endGuardToo(cmd)
	return nil
}

// daemonOf is what the daemon of the view on a mountpoint is asked by: elsewhere, after mount --move.
func daemonOf(mountpoint string) string {
	if p, err := control.Named(mountpoint); err == nil {
		return p.Name
	}
	return mountpoint
}

// umountFree unmounts a view that nobody holds.
func umountFree(ctx context.Context, name string, m *mounttable.Mount) error {
	held, err := holders(ctx, name)
	if err != nil {
		return lazyWould(err)
	}
	if len(held) == 0 {
		giveBack, err := takeOut(ctx, name)
		if err == nil {
			err = control.Dial(name).Ending(ctx)
		}
		if err != nil {
			return lazyWould(err)
		}
		err = unix.Unmount(m.Mountpoint, 0)
		if err == nil {
			err = gone(ctx, name, m)
			giveBack()
			return err
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("umount %s: %w", m.Mountpoint, err)
		}
		held = busy(m.Mountpoint)
	}
	for _, h := range held {
		fmt.Fprintf(os.Stderr, "  %s\n", h)
	}
	return fmt.Errorf("%s is %w: end those processes, or have them leave it", m.Mountpoint, errInUse)
}

func lazyWould(err error) error { return fmt.Errorf("%w; umount --lazy ends it without asking", err) }

// lazyWait is how long a daemon has to answer when its view is taken away all the same.
const lazyWait = 2 * time.Second

func umountLazily(ctx context.Context, name, mountpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, lazyWait)
	defer cancel()
	giveBack, err := takeOut(ctx, name)
	_ = control.Dial(name).Ending(ctx)
	if err := unix.Unmount(mountpoint, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("umount %s: %w", mountpoint, err)
	}
	if err == nil {
		giveBack()
	}
	return nil
}

// viewAt is the view on a directory, which may not be covered by anything: umount(2) takes the topmost.
func viewAt(dir string) (*mounttable.Mount, error) {
	m, err := viewfs.MountAt(dir)
	if err != nil {
		return nil, err
	}
	if m != nil && m.FSType == viewfs.FSType {
		return m, nil
	}
	p, err := control.Named(dir)
	switch {
	case err != nil || p.At == nil:
		return nil, fmt.Errorf("%s is not an imgward view (imgward status lists them)", dir)
	case p.At.Mountpoint != dir:
		return nil, fmt.Errorf("the view on %s was moved to %s: imgward umount %s", dir, p.At.Mountpoint, p.At.Mountpoint)
	}
	return nil, fmt.Errorf("the view on %s is covered by %s (%s): umount that first", dir, m.Source, m.FSType)
}

// gone waits for the daemon's end, and says what keeps it: processes in other mount namespaces that still show the view.
func gone(ctx context.Context, mountpoint string, m *mounttable.Mount) error {
	err := control.WaitGone(ctx, mountpoint)
	if !errors.Is(err, control.ErrStays) {
		return err
	}
	fmt.Fprintf(os.Stderr, "imgward: %s is unmounted here; its daemon serves on for other mount namespaces that show it:\n", mountpoint)
	for _, h := range elsewhere(mounttable.Device(m)) {
		fmt.Fprintf(os.Stderr, "  %s\n", h)
	}
	return nil
}

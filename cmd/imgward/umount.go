package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
)

func newUmount() *cobra.Command {
	var lazy bool
	c := &cobra.Command{
		Use:   "umount [--lazy] DIR",
		Short: "End a view",
		Long: `End the view on DIR. While anybody holds files through it, it is refused and
says who; --lazy takes the view away from the name space all the same, and
serves those who hold files until they let go. New opens then go to the bare
directory, unprotected.
` + exitHelp,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error { return umount(cmd, args[0], lazy) },
	}
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
	m, err := viewfs.MountAt(mountpoint)
	if err != nil {
		return err
	}
	if m == nil || m.FSType != viewfs.FSType {
		return fmt.Errorf("%s is not an imgward view", mountpoint)
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can unmount a view")
	}
	if lazy || viewfs.Dead(mountpoint) {
		return unix.Unmount(mountpoint, unix.MNT_DETACH)
	}
	held, err := holders(cmd.Context(), mountpoint)
	if err != nil {
		return fmt.Errorf("%w; umount --lazy ends it without asking", err)
	}
	if len(held) == 0 {
		err = unix.Unmount(mountpoint, 0)
		if err == nil {
			return gone(cmd.Context(), mountpoint, m)
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("umount %s: %w", mountpoint, err)
		}
		held = busy(mountpoint)
	}
	for _, h := range held {
		fmt.Fprintf(os.Stderr, "  %s\n", h)
	}
	return fmt.Errorf("%s is %w: end those first", mountpoint, errInUse)
}

// gone waits for the daemon's end, and says what keeps it: processes in other mount namespaces that still show the view.
func gone(ctx context.Context, mountpoint string, m *mountinfo.Info) error {
	err := control.WaitGone(ctx, mountpoint)
	if !errors.Is(err, control.ErrStays) {
		return err
	}
	fmt.Fprintf(os.Stderr, "imgward: %s is unmounted here; its daemon serves on for other mount namespaces that show it:\n", mountpoint)
	for _, h := range elsewhere(viewfs.Device(m)) {
		fmt.Fprintf(os.Stderr, "  %s\n", h)
	}
	return nil
}

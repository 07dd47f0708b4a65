package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	viewfs "imgward/fs"
	"imgward/fs/keeper"
	"imgward/guard/kaudit"
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
			if err := enterHost(); err != nil {
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

// newPrepare is a service's step before the worker (ExecStartPre=+ in imgward@.service): outside of the service's
// sandbox, it mounts the view and leaves the connection with the service manager. For a view that is mounted already,
// when a successor is about to start, it does nothing.
func newPrepare() *cobra.Command {
	var f mountFlags
	c := &cobra.Command{
		Use:    "prepare [-o OPTIONS] [--backing DIR] DIR",
		Short:  "Mount a view for a service's worker",
		Hidden: true,
		Args:   exactly(1),
		RunE:   func(_ *cobra.Command, args []string) error { return f.prepare(args[0]) },
	}
	f.define(c)
	return c
}

func (f *mountFlags) prepare(dir string) error {
	if err := enterHost(); err != nil {
		return err
	}
	client, err := keeper.Connect(true)
	if err != nil {
		return fmt.Errorf("%w (NotifyAccess=exec)", err)
	}
	mountpoint, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if f.backing == "" {
		f.backing = mountpoint
	}
	m, err := viewfs.MountAt(mountpoint)
	if err != nil {
		return err
	}
	if m != nil && m.FSType == viewfs.FSType {
		if !viewfs.DeadNow(mountpoint) {
			return nil
		}
		fmt.Fprintf(os.Stderr, "imgward: a dead view on %s gives way to a new one\n", mountpoint)
		if err := unix.Unmount(mountpoint, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("umount %s: %w", mountpoint, err)
		}
	}
	if err := f.checkFirst(mountpoint); err != nil {
		return err
	}
	o, _, err := f.viewOptions(mountpoint)
	if err != nil {
		return err
	}
	err = viewfs.Prepare(&viewfs.Config{Options: o, Keeper: client, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err == nil {
		keepAudit(client)
	}
	return errors.Join(err, client.Barrier())
}

// keepAudit leaves the worker a socket to the kernel's audit log, where there is one.
func keepAudit(client *keeper.Client) {
	fd, err := kaudit.Socket()
	if err != nil {
		return
	}
	defer unix.Close(fd)
	client.Drop(keptAudit)
	_ = client.Keep(keptAudit, fd) // without it there are no audit records, which is no reason to have no view
}

// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	viewfs "imgward/fs"
	"imgward/fs/keeper"
	"imgward/guard/kaudit"
)

// Prepare is a service's step before the worker (ExecStartPre=+ in imgward@.service): outside of the service's sandbox, it
// mounts the view and leaves the connection with the service manager. For a view that is mounted already, when a successor
// is about to start, it does nothing.
func (f *Flags) Prepare(dir string) error {
	if err := EnterHost(); err != nil {
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
	if f.Backing == "" {
		f.Backing = mountpoint
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
	conceal, err := f.expose(mountpoint)
	if err != nil {
		return err
	}
	below, without := f.covered(mountpoint), f.backupsWithout(mountpoint) // before: nobody serves the view yet
	err = viewfs.Prepare(&viewfs.Config{Options: o, Keeper: client, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err == nil {
		keepAudit(client)
		tellBackups(os.Stderr, mountpoint, without)
		tellBystanders(os.Stderr, mountpoint, below)
	} else {
		conceal()
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

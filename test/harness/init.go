// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Sockets is a directory where QEMU, which is not root, may make sockets of short names.
const Sockets = "/run/sockets"

// enterMounts gives this mount namespace its own libvirt directories.
func enterMounts() error {
	// Cut off from the host, but shared among ourselves, as systemd leaves it: that a mount reaches the namespaces made
	// before it (libvirt gives each QEMU one) is part of what is tested.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make / shared: %w", err)
	}
	if err := ownLibvirt(os.Getenv(rootEnv)); err != nil {
		return err
	}
	return mountFusectl()
}

// ownLibvirt gives this mount namespace libvirt directories that are below dir. (There is no D-Bus in its own /run: libvirtd
// must not register our guests with the host's systemd.)
func ownLibvirt(dir string) error {
	if err := errors.Join(os.Mkdir(Sockets, 0), os.Chmod(Sockets, os.ModeSticky|0o777)); err != nil {
		return err
	}
	for _, d := range libvirtDirs {
		if err := os.MkdirAll(d, 0o755); err != nil { // /var/log is empty
			return err
		}
		if err := unix.Mount(filepath.Join(dir, d), d, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", d, err)
		}
	}
	return nil
}

// mountsLeft says which FUSE mounts the tests have left.
func mountsLeft() error {
	mounts, err := fuseMounts()
	var left []string
	for _, m := range mounts {
		left = append(left, "mount "+m.point)
	}
	if len(left) > 0 {
		err = errors.Join(err, errors.New("left behind: "+strings.Join(left, "; ")))
	}
	return err
}

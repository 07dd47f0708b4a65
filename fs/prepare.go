// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"imgward/fs/mounttable"
	"imgward/fs/state"
)

// Names under which the keeper holds the way to the host for a worker in a mount namespace of its own.
// None is such as handleName and lockName make: what no record names is let go of.
const (
	keptRoot  = "host-root"         // the host's "/"
	keptTable = "host-mounts"       // the host's mount table
	keptWatch = "host-mounts-watch" // the same, for MountTable
)

// mounted is a view that nobody serves yet. The kernel's first request is in the state.
type mounted struct {
	tree, dev *os.File
	region    *state.Region
}

// mountNew makes a new connection and mounts it.
func mountNew(c *Config) (_ *mounted, err error) {
	m := &mounted{}
	if m.tree, err = cloneTree(c.Backing); err != nil {
		return nil, err
	}
	if err = setAtime(m.tree, c.Flags); err != nil {
		return nil, err
	}
	if m.region, err = state.Create(); err != nil {
		return nil, err
	}
	if m.dev, err = openDevice(); err != nil {
		return nil, err
	}
	if err := mountView(m.dev, m.tree, &c.Options); err != nil {
		return nil, err
	}
	if err := m.meet(c.Mountpoint); err != nil {
		return nil, errors.Join(err, unix.Unmount(c.Mountpoint, unix.MNT_DETACH))
	}
	return m, nil
}

// meet notes what the kernel says of the new mount.
func (m *mounted) meet(mountpoint string) error {
	info, err := MountAt(mountpoint)
	if err != nil || info == nil {
		return fmt.Errorf("find the view in the mount table: %w", errors.Join(err, os.ErrNotExist))
	}
	m.region.SetDevice(mounttable.Device(info))
	init, err := readInit(m.dev)
	if err != nil {
		return err
	}
	m.region.SaveInit(init)
	return nil
}

// readInit reads the kernel's first request.
func readInit(dev *os.File) ([]byte, error) {
	buf := make([]byte, maxRequest+4096)
	n, err := retryEINTR(func() (int, error) { return unix.Read(int(dev.Fd()), buf) })
	if err != nil {
		return nil, fmt.Errorf("read INIT from the kernel: %w", err)
	}
	return buf[:n], nil
}

// keep gives the keeper what a worker needs, the connection last: who has that can serve.
func (m *mounted) keep(k Keeper) error {
	for _, f := range []struct {
		name string
		file *os.File
	}{{keptTree, m.tree}, {keptState, m.region.File()}, {keptDevice, m.dev}} {
		// systemd does not replace what it has under a name, as after an attempt that did not get far.
		k.Drop(f.name)
		if err := k.Keep(f.name, int(f.file.Fd())); err != nil {
			return fmt.Errorf("hand %s to the keeper: %w", f.name, err)
		}
	}
	return nil
}

// Prepare mounts a view for a worker that the keeper will start. That worker may be in a mount namespace of its own, so
// it is left the host's root and mount table as well: evidence names the host's paths.
func Prepare(c *Config) error {
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	table, err := mounttable.OpenFile()
	if err != nil {
		return err
	}
	watch, err := mounttable.OpenFile()
	if err != nil {
		return err
	}
	m, err := mountNew(c)
	if err != nil {
		return err
	}
	for name, fd := range map[string]int{keptRoot: int(root.Fd()), keptTable: table, keptWatch: watch} {
		c.Keeper.Drop(name)
		if err = c.Keeper.Keep(name, fd); err != nil {
			break
		}
	}
	if err == nil {
		err = m.keep(c.Keeper)
	}
	if err != nil {
		return errors.Join(err, unix.Unmount(c.Mountpoint, unix.MNT_DETACH))
	}
	return nil
}

// hostOf is the way to the files that evidence names: what Prepare left, or this process's own.
func hostOf(kept map[string]int, tree int, dev uint64) (*Host, error) {
	root, ok := kept[keptRoot]
	table, ok2 := kept[keptTable]
	if !ok || !ok2 {
		return NewHost(tree, dev)
	}
	return &Host{root: root, tree: tree, dev: dev, prepared: true, mounts: mounttable.NewReader(table)}, nil
}

// Root is what leads to the host's files when put before their absolute paths: nothing, or, for a process in a mount
// namespace of its own, a path to the host's root.
func (h *Host) Root() string {
	if h.prepared {
		return procPath(h.root)
	}
	return ""
}

// deadWait is how long a dead connection may take to say so. It answers at once; a live one without a worker does not
// answer at all.
const deadWait = 20 * time.Millisecond

// DeadNow is Dead for a view that may have no worker at the moment: it does not wait for one. False: it lives, or this
// machine is too busy to tell.
func DeadNow(mountpoint string) bool {
	dead := make(chan bool, 1)
	go func() { dead <- Dead(mountpoint) }()
	select {
	case d := <-dead:
		return d
	case <-time.After(deadWait):
		return false
	}
}

// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// viewType is the type of a view's mount (fs.FSType).
const viewType = "fuse.imgward"

// KeepViews keeps the views of this mount namespace mounted while a VMM has a file of them open: their own mounts and those that
// these stand on. What is not mounted any more is forgotten: the kernel gives its numbers to others. It returns the mountpoints by the
// device number of the view's file system.
func (l *Layer) KeepViews() (map[uint64]string, error) {
	table, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("second layer: %w", err)
	}
	byID := map[int]*mountinfo.Info{}
	for _, m := range table {
		byID[m.ID] = m
	}
	found, views, mounts := map[uint64]string{}, map[uint32]bool{}, map[uint32]uint32{}
	for _, m := range table {
		if m.FSType != viewType {
			continue
		}
		number := unix.Mkdev(uint32(m.Major), uint32(m.Minor))
		if found[number] == "" {
			found[number] = m.Mountpoint // the first: bind mounts of it come later
			mounts[uint32(m.ID)] = kernelDev(number)
		}
		views[kernelDev(number)] = true
		for up := byID[m.Parent]; up != nil && up.ID != up.Parent; up = byID[up.Parent] {
			if _, ok := mounts[uint32(up.ID)]; !ok {
				mounts[uint32(up.ID)] = 0
			}
		}
	}
	return found, errors.Join(l.keepViews(views), keep(l.Mounts, mounts))
}

// keepViews leaves out what is no view any more. What is one stays as it is: it counts what is open.
func (l *Layer) keepViews(wanted map[uint32]bool) error {
	var dev uint32
	var v view
	var old []uint32
	for it := l.Views.Iterate(); it.Next(&dev, &v); {
		if !wanted[dev] {
			old = append(old, dev)
		}
	}
	for _, dev := range old {
		_ = l.Views.Delete(dev)
	}
	for dev := range wanted {
		if err := l.Views.Update(dev, view{}, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("second layer: views: %w", err)
		}
	}
	return nil
}

// keep has a map hold what is wanted, and nothing else.
func keep(m *ebpf.Map, wanted map[uint32]uint32) error {
	var key, value uint32
	var old []uint32
	for it := m.Iterate(); it.Next(&key, &value); {
		if _, ok := wanted[key]; !ok {
			old = append(old, key)
		}
	}
	for _, key := range old {
		_ = m.Delete(key)
	}
	for key, value := range wanted {
		if err := m.Update(key, value, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("second layer: %v: %w", m, err)
		}
	}
	return nil
}

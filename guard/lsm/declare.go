// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/layers"
	"imgward/guard/policy"
)

// Image is an image that is in use, or for which there is an exception.
type Image struct {
	ID guard.ID
	// File is a descriptor of a regular file, or of a directory that must keep its name; O_PATH will do. It stays open until a Declare has left the image out: that keeps
	// the inode, and with it the declaration, in memory.
	File *os.File
	// Holders are the processes of the running domains that use it. While one lives the image is in use, and they may do
	// anything to it.
	Holders []int
	// Used: it is in use whoever lives.
	Used bool
	// Below: it is a device that one in use is made of, or the file of a loop device. Storage managers may write to it, and so may
	// the loop device.
	Below bool
	// Always: the policy keeps it, also from managers. Defined: a domain would use it that does not run; managers may do anything
	// to it while no VMM has it open.
	Always, Defined bool
	// Audit: refusals are only reported.
	Audit bool
	// Deny are the operations that the policy refuses.
	Deny policy.Ops
	// Exception lets one user through; nil: nobody.
	Exception *guard.Exception
}

// Declare says which images are in use, all of them: what was declared before and is not among them is so no more. The
// error names those that could not be declared.
func (l *Layer) Declare(images []Image) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	wanted := map[guard.ID]bool{}
	for i := range images {
		wanted[images[i].ID] = true
		if err := l.declare(&images[i]); err != nil {
			errs = append(errs, err)
		}
	}
	for id := range maps.Clone(l.images) {
		if !wanted[id] {
			errs = append(errs, l.retract(id))
		}
	}
	return errors.Join(append(errs, l.outdate(), l.keepNodes())...)
}

// keepNodes tells by which character devices the declared disks take commands: `nvme format /dev/nvme0`, `sg_format /dev/sg0`.
func (l *Layer) keepNodes() error {
	wanted := map[uint32]uint32{}
	for id := range l.images {
		if id.Dev != guard.BlockDevice {
			continue
		}
		for _, node := range (layers.Stack{}).Nodes(layers.ID(id)) {
			n := kernelDev(node)
			wanted[n] = max(wanted[n], kernelDev(id.Ino)) // a controller may have several
		}
	}
	return keep(l.Nodes, wanted)
}

func (l *Layer) declare(m *Image) error {
	d := l.images[m.ID]
	if d == nil {
		l.last++
		d = &declaration{value: image{ID: l.last}}
	}
	value := l.value(m, d.value.ID)
	if old := d.value.Allowance; old.Exception == value.Allowance.Exception {
		value.Allowance.User = old.User
		value.Allowance.Until = old.Until
	}
	if l.images[m.ID] != nil && value == d.value {
		return nil
	}
	d.value = value
	if m.ID.Dev == guard.BlockDevice {
		if err := l.Devices.Update(kernelDev(m.ID.Ino), value, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("second layer: device %d:%d: %w", unix.Major(m.ID.Ino), unix.Minor(m.ID.Ino), err)
		}
	} else {
		d.file = m.File
		if err := l.Declared.Update(int32(d.file.Fd()), value, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("second layer: %s: %w", d.file.Name(), err)
		}
	}
	l.images[m.ID], l.byNumber[value.ID] = d, m.ID
	return nil
}

func (l *Layer) value(m *Image, id uint32) image {
	v := image{ID: id, Deny: denied(m.Deny), Generation: l.settings.Generation}
	for flag, is := range map[uint32]bool{
		imageUsed: m.Used, imageBelow: m.Below, imageAlways: m.Always, imageDefined: m.Defined, imageAudit: m.Audit,
	} {
		if is {
			v.Flags |= flag
		}
	}
	holders := slices.Compact(slices.Sorted(slices.Values(m.Holders)))
	if len(holders) > maxHolders {
		v.Flags |= imageMany
		holders = nil
	}
	for i, pid := range holders {
		v.Holders[i] = uint32(pid)
	}
	if e := m.Exception; e != nil {
		v.Allowance = allowed(e)
	}
	return v
}

// denied are the programs' bits for the policy's operations.
func denied(ops policy.Ops) (bits uint32) {
	for kind, some := range map[policy.Ops][]op{
		policy.Truncate: {opTruncate}, policy.Write: {opWrite, opWriteData}, policy.Unlink: {opUnlink},
		policy.Rename: {opRename, opReplace, opCover}, policy.SetFlags: {opSetFlags},
	} {
		if ops&kind != 0 {
			for _, o := range some {
				bits |= 1 << o
			}
		}
	}
	return bits
}

func allowed(e *guard.Exception) allowance {
	a := allowance{Exception: e.ID, Ops: denied(e.Ops), UID: e.UID, Login: ^uint32(0)}
	if e.LoginUID != nil {
		a.Login = *e.LoginUID
	}
	if e.Once {
		a.Once = 1
	}
	if e.Command != nil {
		a.User = uint32(e.Command.PID)
	}
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	a.Until = uint64(now.Nano() + max(0, int64(time.Until(e.Expires))))
	return a
}

func (l *Layer) retract(id guard.ID) (err error) {
	d := l.images[id]
	delete(l.images, id)
	delete(l.byNumber, d.value.ID)
	if d.file == nil {
		err = l.Devices.Delete(kernelDev(id.Ino))
	} else {
		err = l.Declared.Delete(int32(d.file.Fd()))
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// outdate ends what daemons before this one have declared: now that all is declared again.
func (l *Layer) outdate() error {
	var now settings
	if err := l.Settings.Lookup(uint32(0), &now); err != nil || now.Generation == l.settings.Generation {
		return err
	}
	if err := l.Settings.Update(uint32(0), l.settings, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("second layer: settings: %w", err)
	}
	var dev uint32
	var m image
	var old []uint32
	for it := l.Devices.Iterate(); it.Next(&dev, &m); {
		if m.Generation < l.settings.Generation {
			old = append(old, dev)
		}
	}
	for _, dev := range old {
		_ = l.Devices.Delete(dev)
	}
	return nil
}

// SetPolicy sets what holds for images that are not declared, and whether refusals are only reported.
func (l *Layer) SetPolicy(deny policy.Ops, audit bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var now settings
	if err := l.Settings.Lookup(uint32(0), &now); err != nil {
		return err
	}
	l.settings.Deny, l.settings.Audit = denied(deny), 0
	if audit {
		l.settings.Audit = 1
	}
	written := l.settings
	written.Generation = now.Generation
	return l.Settings.Update(uint32(0), written, ebpf.UpdateAny)
}

// kernelDev is a device number as the kernel keeps it (include/linux/kdev_t.h).
func kernelDev(dev uint64) uint32 { return unix.Major(dev)<<20 | unix.Minor(dev) }

// userDev is the way back.
func userDev(dev uint32) uint64 { return unix.Mkdev(dev>>20, dev&(1<<20-1)) }

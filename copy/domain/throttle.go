// SPDX-License-Identifier: Apache-2.0

package domain

import "context"

// throttle is a limit that the guest's writes to one disk have while its overlay is merged: without one a guest may write
// faster than the merge, which then never ends. It is QEMU's own (virsh blkdeviotune), of the running domain alone, and what
// it was before is on the medium before it is changed.
type throttle struct {
	Limit string `json:"limit"` // libvirt's name of it
	Was   uint64 `json:"was"`   // bytes a second; 0: none
	Now   uint64 `json:"now"`
}

// slow limits the guest's writes to a disk, if that was asked for. A merge that cannot be helped like that goes on without.
func (m *merger) slow(ctx context.Context, o *overlay) error {
	if m.in.Throttle == 0 || o.Throttle != nil {
		return nil
	}
	limits, err := m.conn.DiskLimits(ctx, m.d, o.Target)
	t := &throttle{Limit: "write_bytes_sec", Now: m.in.Throttle}
	if limits["total_bytes_sec"] > 0 {
		t.Limit = "total_bytes_sec" // a disk that has one cannot have the other
	}
	t.Was = limits[t.Limit]
	if err == nil && t.Was > 0 && t.Was <= t.Now {
		return nil
	}
	if err == nil {
		o.Throttle = t
		if err := m.in.save(); err != nil {
			return err
		}
		err = m.conn.LimitDisk(ctx, m.d, o.Target, t.Limit, t.Now)
	}
	if err != nil {
		m.log.Warn("the guest's writes cannot be slowed down; the merge goes on", "domain", m.in.Domain, "disk", o.Target, "err", err)
		return nil
	}
	m.log.Info("the guest's writes are slowed down until the overlay is merged", "domain", m.in.Domain, "disk", o.Target, "bytes a second", t.Now)
	return nil
}

// unslow gives the disk the limit that it had. It ends with the domain, and somebody may have set another one meanwhile.
func (m *merger) unslow(ctx context.Context, o *overlay) error {
	if o.Throttle == nil {
		return nil
	}
	now, active, err := m.source(ctx, o.Target)
	if err != nil {
		return err
	}
	if t := o.Throttle; active && now != "" {
		limits, err := m.conn.DiskLimits(ctx, m.d, o.Target)
		if err == nil && limits[t.Limit] == t.Now {
			err = m.conn.LimitDisk(ctx, m.d, o.Target, t.Limit, t.Was)
		}
		if err != nil {
			return err
		}
	}
	o.Throttle = nil
	return m.in.save()
}

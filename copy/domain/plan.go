// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
)

// Plan is what a copy of a domain would be.
type Plan struct {
	Domain    string             `json:"domain"`
	Method    archive.Method     `json:"method"`
	Running   bool               `json:"running,omitempty"`
	Transient bool               `json:"transient,omitempty"`
	Files     []archive.File     `json:"files"`
	Bytes     int64              `json:"bytes"` // of data, as far as file systems know; shared images count for each domain
	Omitted   []archive.Omission `json:"omitted,omitempty"`
	Obstacles []string           `json:"obstacles,omitempty"` // why it cannot be copied just now
}

// MakePlan looks at a domain and changes nothing. What could not be done is an obstacle, not an error.
func MakePlan(ctx context.Context, d libvirtd.Domain, o Options) (Plan, error) {
	p := Plan{Domain: d.Name, Method: archive.Offline, Running: d.Active}
	persistent, err := o.Conn.Persistent(ctx, d)
	if err != nil {
		return p, err
	}
	p.Transient = !persistent
	r := &run{o: &o, d: d, inv: newInventory(), intent: new(intent)}
	if r.desc, err = lookAt(ctx, o.Conn, d); err != nil {
		return p, err
	}
	p.Omitted, err = r.stock(ctx)
	p.hinder(err)
	if d.Active {
		p.Method = o.Method
		p.hinder(r.idle(ctx))
		if o.Method == archive.Freeze {
			overlays, err := r.planOverlays()
			p.hinder(err)
			p.hinder(spaceFor(overlays))
		}
	}
	for _, f := range r.inv.files {
		p.Bytes += allocated(&f)
	}
	p.Files = r.inv.files
	return p, ctx.Err()
}

func (p *Plan) hinder(err error) {
	if err != nil {
		p.Obstacles = append(p.Obstacles, err.Error())
	}
}

// Estimate is how much data each image of a domain has, by its path: one call of libvirt's for its XML. Of a chain that cannot
// be read it is what can be.
func Estimate(ctx context.Context, conn *libvirtd.Conn, d libvirtd.Domain) (map[string]int64, error) {
	files, err := images(ctx, conn, d)
	if err != nil {
		return nil, err
	}
	sizes := make(map[string]int64)
	for i := range files {
		sizes[files[i].Source] = allocated(&files[i])
	}
	return sizes, nil
}

// images are the files of a domain's disks; of a chain that cannot be read those that can be.
func images(ctx context.Context, conn *libvirtd.Conn, d libvirtd.Domain) ([]archive.File, error) {
	desc, err := lookAt(ctx, conn, d)
	if err != nil {
		return nil, err
	}
	v := newInventory()
	for i := range desc.Disks {
		if desc.Disks[i].path != "" {
			_ = v.disk(ctx, &desc.Disks[i])
		}
	}
	return v.files, nil
}

// allocated is how much of a file is data.
func allocated(f *archive.File) int64 {
	var st unix.Stat_t
	if f.Source == "" || unix.Stat(f.Source, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return f.Size
	}
	return min(f.Size, st.Blocks*512)
}

// Uses says whether a domain has an image or block device, by inode: as a disk, or anywhere in the chain of one.
func Uses(ctx context.Context, conn *libvirtd.Conn, d libvirtd.Domain, path string) (bool, error) {
	files, err := images(ctx, conn, d)
	if err != nil {
		return false, fmt.Errorf("domain %s: %w", d.Name, err)
	}
	want, _, err := statID(path)
	if err != nil {
		return false, err
	}
	for _, f := range files {
		if id, _, err := statID(f.Source); err == nil && id == want {
			return true, nil
		}
	}
	return false, nil
}

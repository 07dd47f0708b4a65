// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"context"
	"encoding/xml"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"imgward/copy/domain/archive"
)

// metadata saves what libvirt knows besides the domain: snapshots and checkpoints with the files that only they name,
// networks and pools. What is named and not there is no reason not to copy the rest.
func (r *run) metadata(ctx context.Context) (missing []archive.Omission, err error) {
	snapshots, err := r.o.Conn.Snapshots(ctx, r.d)
	if err != nil {
		return nil, err
	}
	// Only images that are copied as they are have bitmaps and internal snapshots.
	bare := r.o.Flat || r.d.Active && r.o.Method != archive.Freeze
	for _, s := range snapshots {
		if bare && internal(s.XML) {
			missing = append(missing, archive.Omission{Source: "snapshot " + s.Name, Why: "it is in an image, and not in such a copy: --live=freeze keeps it"})
			continue
		}
		name := r.inv.free("snapshots", s.Name+".xml")
		if err := r.text(name, archive.File{Kind: archive.Snapshot, Name: s.Name, Current: s.Current}, s.XML); err != nil {
			return nil, err
		}
		more, err := r.snapshotFiles(ctx, s.Name, s.XML)
		if err != nil {
			return nil, err
		}
		missing = append(missing, more...)
	}
	checkpoints, err := r.o.Conn.Checkpoints(ctx, r.d)
	if err != nil {
		return nil, err
	}
	for _, c := range checkpoints {
		if bare {
			missing = append(missing, archive.Omission{Source: "checkpoint " + c.Name, Why: "its bitmaps are not in such a copy: --live=freeze keeps them"})
			continue
		}
		name := r.inv.free("checkpoints", c.Name+".xml")
		if err := r.text(name, archive.File{Kind: archive.Checkpoint, Name: c.Name}, c.XML); err != nil {
			return nil, err
		}
	}
	for _, kind := range []struct {
		kind  archive.Kind
		names []string
		xml   func(context.Context, string) (string, error)
	}{
		{archive.Network, r.desc.networks(), r.o.Conn.NetworkXML},
		{archive.Pool, r.desc.pools(), r.o.Conn.PoolXML},
	} {
		for _, name := range kind.names {
			text, err := kind.xml(ctx, name)
			if err == nil {
				err = r.text(r.inv.free(string(kind.kind)+"s", name+".xml"), archive.File{Kind: kind.kind, Name: name}, text)
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				missing = append(missing, archive.Omission{Source: name, Why: err.Error()})
			}
		}
	}
	return missing, nil
}

// internal says whether a snapshot is in the images themselves, not in files of its own.
func internal(text string) bool {
	var s struct {
		Memory struct {
			Snapshot string `xml:"snapshot,attr"`
		} `xml:"memory"`
		Disks []struct {
			Snapshot string `xml:"snapshot,attr"`
		} `xml:"disks>disk"`
	}
	if err := xml.Unmarshal([]byte(text), &s); err != nil {
		return false // that is said by whoever looks for its files
	}
	for _, d := range s.Disks {
		if d.Snapshot == "internal" {
			return true
		}
	}
	return s.Memory.Snapshot == "internal"
}

// snapshotFiles adds the images and the memory that a snapshot names: after a revert they are in no disk's chain any more.
func (r *run) snapshotFiles(ctx context.Context, name, text string) (missing []archive.Omission, err error) {
	var s struct {
		Memory struct {
			File string `xml:"file,attr"`
		} `xml:"memory"`
		Disks []struct {
			Name   string `xml:"name,attr"`
			Driver struct {
				Type string `xml:"type,attr"`
			} `xml:"driver"`
			Source srcName `xml:"source"`
		} `xml:"disks>disk"`
		Then []disk `xml:"domain>devices>disk"` // as they were
	}
	if err := xml.Unmarshal([]byte(text), &s); err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", name, err)
	}
	chains := s.Then
	for _, d := range s.Disks {
		top := disk{Driver: d.Driver, Source: d.Source}
		top.Target.Dev = d.Name
		chains = append(chains, top)
	}
	for i := range chains {
		d := &chains[i]
		d.path = d.Source.File
		if d.path == "" {
			d.path = d.Source.Dev
		}
		switch {
		case d.path == "":
		case !exists(d.path):
			missing = append(missing, archive.Omission{Target: d.Target.Dev, Source: d.path, Why: "snapshot " + name + " names it, and it is not there"})
		default:
			d.below = true
			if err := r.inv.disk(ctx, d); err != nil {
				return nil, fmt.Errorf("snapshot %s: %w", name, err)
			}
		}
	}
	switch {
	case s.Memory.File == "":
	case !exists(s.Memory.File):
		missing = append(missing, archive.Omission{Source: s.Memory.File, Why: "snapshot " + name + " has its memory there, and it is not there"})
	default:
		_, _, err = r.inv.add("save", archive.File{Kind: archive.Memory, Name: name, Source: s.Memory.File})
	}
	return missing, err
}

// saveDir is where libvirt's qemu driver has managed-save images.
const saveDir = "/var/lib/libvirt/qemu/save"

// savedState adds the state of a domain that was saved.
func (r *run) savedState(ctx context.Context) error {
	saved, err := r.o.Conn.Saved(ctx, r.d)
	if err != nil || !saved {
		return err
	}
	file := filepath.Join(saveDir, r.d.Name+".save")
	if strings.HasSuffix(strings.SplitN(r.o.Conn.URI(), "?", 2)[0], "/session") {
		file = path.Join(r.o.Home, ".config/libvirt/qemu/save", r.d.Name+".save")
	}
	if _, _, err := r.inv.add("save", archive.File{Kind: archive.ManagedSave, Source: file}); err != nil {
		return fmt.Errorf("the domain is saved, and its state cannot be found: %w", err)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"context"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
)

// description is what a copy needs to know of a domain's XML (formatdomain.html).
type description struct {
	Name   string `xml:"name"`
	UUID   string `xml:"uuid"`
	NVRAM  nvram  `xml:"os>nvram"`
	Kernel string `xml:"os>kernel"`
	Initrd string `xml:"os>initrd"`
	DTB    string `xml:"os>dtb"`
	Disks  []disk `xml:"devices>disk"`
	TPM    []struct {
		Type string `xml:"type,attr"`
		// Version of the emulated chip: "1.2" or "2.0"; libvirt's directories are named after it.
		Version string `xml:"version,attr"`
		Source  struct {
			Path string `xml:"path,attr"`
			Type string `xml:"type,attr"`
		} `xml:"source"`
	} `xml:"devices>tpm>backend"`
	Interfaces []struct {
		Source struct {
			Network string `xml:"network,attr"`
		} `xml:"source"`
	} `xml:"devices>interface"`
	HostDevices []struct {
		Type string `xml:"type,attr"`
	} `xml:"devices>hostdev"`
	Filesystems []struct {
		Source struct {
			Dir string `xml:"dir,attr"`
		} `xml:"source"`
	} `xml:"devices>filesystem"`
}

// nvram is given as text, or as a source like a disk's.
type nvram struct {
	Text   string  `xml:",chardata"`
	Source srcName `xml:"source"`
}

func (n nvram) path() string {
	if n.Source.File != "" {
		return n.Source.File
	}
	return strings.TrimSpace(n.Text)
}

type srcName struct {
	Encryption *struct{} `xml:"encryption"`
	File       string    `xml:"file,attr"`
	Dev        string    `xml:"dev,attr"`
	Dir        string    `xml:"dir,attr"`
	Pool       string    `xml:"pool,attr"`
	Volume     string    `xml:"volume,attr"`
	// Of network disks.
	Protocol string `xml:"protocol,attr"`
	Name     string `xml:"name,attr"`
}

// disk is one <disk>.
type disk struct {
	Device string `xml:"device,attr"` // "disk", "cdrom", "floppy", "lun"; libvirt always says which
	Driver struct {
		Type string `xml:"type,attr"`
	} `xml:"driver"`
	Source srcName `xml:"source"`
	Target struct {
		Dev string `xml:"dev,attr"`
	} `xml:"target"`
	Backing struct {
		Format struct {
			Type string `xml:"type,attr"`
		} `xml:"format"`
		Source srcName `xml:"source"`
	} `xml:"backingStore"`
	Mirror    *mirrorXML `xml:"mirror"`
	Encrypted *struct{}  `xml:"encryption"` // as older definitions have it
	ReadOnly  *struct{}  `xml:"readonly"`
	Shareable *struct{}  `xml:"shareable"`
	Transient *struct{}  `xml:"transient"`

	path  string // of the image, once resolved; "": no file or block device of this host
	below bool   // no disk's own image: a snapshot's
}

// writable says whether the domain itself changes the disk.
func (d *disk) writable() bool {
	return d.path != "" && d.ReadOnly == nil && d.kind() == archive.Disk
}

// changes says whether the domain, while it runs, changes the image, and nobody else does.
func (d *disk) changes() bool { return d.writable() && d.Shareable == nil && d.Transient == nil }

// remote says whether the disk is on another host's storage and the domain alone changes it: what QEMU can read, and we cannot.
func (d *disk) remote() bool {
	return d.path == "" && (d.Source.Protocol != "" || d.Source.Volume != "") && d.ReadOnly == nil && d.kind() == archive.Disk &&
		d.Shareable == nil && d.Transient == nil
}

// remoteName is what a disk without a path is called: "rbd:pool/image".
func (s *srcName) remoteName() string {
	if s.Protocol != "" {
		return s.Protocol + ":" + s.Name
	}
	return "volume:" + s.Pool + "/" + s.Volume
}

// mirrorXML is where a block job copies a disk to.
type mirrorXML struct {
	Ready  string  `xml:"ready,attr"` // "yes" when the two are equal and stay so
	File   string  `xml:"file,attr"`  // the older form
	Source srcName `xml:"source"`
}

func (m *mirrorXML) file() string {
	if m.Source.File != "" {
		return m.Source.File
	}
	return m.File
}

func (d *disk) kind() archive.Kind {
	switch d.Device {
	case "cdrom":
		return archive.CDROM
	case "floppy":
		return archive.Floppy
	}
	return archive.Disk
}

func (d *disk) format() string {
	if d.Driver.Type == "" {
		return "raw" // as libvirt takes it
	}
	return d.Driver.Type
}

// volumes finds the path of a storage pool's volume.
type volumes interface {
	VolumePath(ctx context.Context, pool, volume string) (string, error)
}

// describe reads a domain's XML. A disk that is no file or device of this host has no path.
func describe(ctx context.Context, text string, v volumes) (*description, error) {
	d := new(description)
	if err := xml.Unmarshal([]byte(text), d); err != nil {
		return nil, fmt.Errorf("read the domain's XML: %w", err)
	}
	for i := range d.Disks {
		disk := &d.Disks[i]
		// While it runs, libvirt has it on an overlay that it removes at the end (qemuSnapshotCreateDisksTransient).
		if below := disk.Backing; disk.Transient != nil && strings.HasSuffix(disk.Source.File, ".TRANSIENT-"+d.Name) {
			disk.Source, disk.Driver.Type = below.Source, below.Format.Type
		}
		s := disk.Source
		switch {
		case s.File != "":
			disk.path = s.File
		case s.Dev != "":
			disk.path = s.Dev
		case s.Volume != "":
			path, err := v.VolumePath(ctx, s.Pool, s.Volume)
			if err != nil {
				return nil, err
			}
			if filepath.IsAbs(path) { // of a network pool it is no path
				disk.path = path
			}
		}
	}
	return d, nil
}

// lookAt describes a domain as it runs, or by its definition.
func lookAt(ctx context.Context, conn *libvirtd.Conn, d libvirtd.Domain) (*description, error) {
	text, err := conn.XML(ctx, d, libvirtd.XML{Inactive: !d.Active})
	if err != nil {
		return nil, err
	}
	return describe(ctx, text, conn)
}

// omissions are what the domain has and no copy can have. pulled: QEMU reads the disks.
func (d *description) omissions(pulled bool) (out []archive.Omission) {
	for _, disk := range d.Disks {
		switch s := disk.Source; {
		case disk.path != "", pulled && disk.remote():
		case s.Protocol != "":
			out = append(out, archive.Omission{Target: disk.Target.Dev, Source: s.remoteName(),
				Why: "a network disk: --live=backup copies one that a running domain writes to; or copy it with the tools of that storage"})
		case s.Dir != "":
			out = append(out, archive.Omission{Target: disk.Target.Dev, Source: s.Dir, Why: "a directory shown as a disk (vvfat)"})
		case s.Volume != "":
			out = append(out, archive.Omission{Target: disk.Target.Dev, Source: s.remoteName(),
				Why: "a volume that is no file of this host: --live=backup copies one that a running domain writes to"})
		}
	}
	for _, f := range d.Filesystems {
		out = append(out, archive.Omission{Source: f.Source.Dir, Why: "a directory of the host that the guest shares: copy it as a directory"})
	}
	for _, h := range d.HostDevices {
		out = append(out, archive.Omission{Source: h.Type, Why: "a device of the host"})
	}
	return out
}

// networks and pools are named by a domain, and must be there before it can be restored.
func (d *description) networks() (names []string) {
	for _, i := range d.Interfaces {
		names = appendNew(names, i.Source.Network)
	}
	return names
}

func (d *description) pools() (names []string) {
	for _, disk := range d.Disks {
		names = appendNew(names, disk.Source.Pool)
	}
	return names
}

func appendNew(names []string, name string) []string {
	if name == "" || slices.Contains(names, name) {
		return names
	}
	return append(names, name)
}

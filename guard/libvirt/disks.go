// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"fmt"
	"strings"

	"libvirt.org/go/libvirtxml"

	"imgward/guard/role"
)

// collector gathers the images of one domain.
type collector struct {
	volumes Volumes
	images  []Image
	notes   []string
}

func (c *collector) add(i Image) {
	if i.Path == "" { // an empty tray, a network disk, or a source that startupPolicy left out
		return
	}
	i.Format = knownFormat(i.Format)
	c.images = append(c.images, i)
}

// knownFormat shares the strings of the common formats: with 10,000 domains in memory that is a megabyte less.
func knownFormat(name string) string {
	switch name {
	case "", "raw":
		return "raw"
	case "qcow2":
		return "qcow2"
	}
	return name
}

func (c *collector) disk(d *libvirtxml.DomainDisk) {
	top := Image{Role: role.Disk, Writable: d.ReadOnly == nil, Shareable: d.Shareable != nil}
	switch d.Device {
	case "cdrom":
		top.Role, top.Writable = role.CDROM, false
	case "floppy":
		top.Role = role.Floppy
	}
	if d.Target != nil {
		top.Target = d.Target.Dev
	}
	if d.Driver != nil {
		top.Format = d.Driver.Type
	}
	c.source(top, d.Source)
	c.chain(top.Target, d.BackingStore)
	if m := d.Mirror; m != nil {
		c.source(Image{Role: role.Mirror, Target: top.Target, Writable: true, Format: formatOf(m.Format)}, m.Source)
		c.chain(top.Target, m.BackingStore)
	}
}

// chain follows the nested <backingStore> elements. A commit makes any of them writable for a while; the file does not
// say which.
func (c *collector) chain(target string, b *libvirtxml.DomainDiskBackingStore) {
	for ; b != nil; b = b.BackingStore {
		c.source(Image{Role: role.Backing, Target: target, Format: formatOf(b.Format)}, b.Source)
	}
}

// source adds the image that s names, and the external data file that belongs to it.
func (c *collector) source(i Image, s *libvirtxml.DomainDiskSource) {
	for ; s != nil; i.Role = role.DataFile {
		i.Path = c.path(s)
		c.add(i)
		if s.DataStore == nil {
			return
		}
		i.Format, s = formatOf(s.DataStore.Format), s.DataStore.Source
	}
}

func (c *collector) path(s *libvirtxml.DomainDiskSource) string {
	switch {
	case s.File != nil:
		return s.File.File
	case s.Block != nil:
		return s.Block.Dev
	case s.Dir != nil:
		return s.Dir.Dir
	case s.Volume != nil && s.Volume.Volume != "":
		if c.volumes != nil {
			if path, ok := c.volumes(s.Volume.Pool, s.Volume.Volume); ok {
				return path
			}
		}
		c.notes = append(c.notes, fmt.Sprintf("volume %s of storage pool %s cannot be found: the pool is not known",
			s.Volume.Volume, s.Volume.Pool))
	}
	return ""
}

func (c *collector) os(o *libvirtxml.DomainOS) {
	if l := o.Loader; l != nil {
		c.add(Image{Path: strings.TrimSpace(l.Path), Role: role.Loader, Format: l.Format, Writable: l.Readonly == "no"})
	}
	if n := o.NVRam; n != nil {
		i := Image{Path: strings.TrimSpace(n.NVRam), Role: role.NVRAM, Format: n.Format, Writable: true}
		if n.Source != nil {
			i.Path = c.path(n.Source)
		}
		c.add(i)
	}
	c.add(Image{Path: o.Kernel, Role: role.Kernel})
	c.add(Image{Path: o.Shim, Role: role.Kernel})
	c.add(Image{Path: o.Initrd, Role: role.Initrd})
	c.add(Image{Path: o.DTB, Role: role.DTB})
}

// otherDevices adds what is no disk and yet a file: a container's root file system, an NVDIMM.
func (c *collector) otherDevices(d *devices) {
	for _, f := range d.Filesystems {
		i := Image{Target: f.Target.Dir, Role: role.FS, Format: f.Driver.Format, Writable: true}
		i.Path = f.Source.File
		if i.Path == "" {
			i.Path = f.Source.Dev
		}
		c.add(i)
	}
	for _, m := range d.Memories {
		c.add(Image{Path: m.Path, Role: role.Memory, Writable: true})
	}
}

func (c *collector) jobs(j jobs) { c.images = append(c.images, j.images...) }

func formatOf(f *libvirtxml.DomainDiskFormat) string {
	if f == nil {
		return ""
	}
	return f.Type
}

// SPDX-License-Identifier: Apache-2.0

package libvirtd

import (
	"context"
	"encoding/xml"
	"fmt"

	"github.com/digitalocean/go-libvirt"
)

// RedefineSnapshot makes a domain's snapshot known again, without making one.
func (c *Conn) RedefineSnapshot(ctx context.Context, d Domain, s Metadata) error {
	flags := libvirt.DomainSnapshotCreateRedefine
	if s.Current {
		flags |= libvirt.DomainSnapshotCreateCurrent
	}
	return c.change(ctx, "redefine a snapshot of "+d.Name, func(l *libvirt.Libvirt) error {
		_, err := l.DomainSnapshotCreateXML(d.handle, s.XML, uint32(flags))
		return err
	})
}

// RedefineCheckpoint makes a domain's checkpoint known again, whose bitmaps its images have.
func (c *Conn) RedefineCheckpoint(ctx context.Context, d Domain, xml string) error {
	return c.change(ctx, "redefine a checkpoint of "+d.Name, func(l *libvirt.Libvirt) error {
		_, err := l.DomainCheckpointCreateXML(d.handle, xml, uint32(libvirt.DomainCheckpointCreateRedefine))
		return err
	})
}

// Undefine forgets a domain's definition, snapshots and checkpoints; its files stay.
func (c *Conn) Undefine(ctx context.Context, d Domain) error {
	const flags = libvirt.DomainUndefineSnapshotsMetadata | libvirt.DomainUndefineCheckpointsMetadata |
		libvirt.DomainUndefineKeepNvram
	return c.change(ctx, "undefine "+d.Name, func(l *libvirt.Libvirt) error { return l.DomainUndefineFlags(d.handle, flags) })
}

// Start starts a domain; one that is saved goes on where it was.
func (c *Conn) Start(ctx context.Context, d Domain) error {
	return c.change(ctx, "start "+d.Name, func(l *libvirt.Libvirt) error { return l.DomainCreate(d.handle) })
}

// RewriteSaved changes the description in the image of a saved domain. There is only so much room in it as libvirt has left.
func (c *Conn) RewriteSaved(ctx context.Context, file string, change func(xml string) (string, error)) error {
	var text string
	err := c.ask(ctx, "read the saved state "+file, func(l *libvirt.Libvirt) (err error) {
		text, err = l.DomainSaveImageGetXMLDesc(file, uint32(libvirt.DomainSaveImageXMLSecure))
		return err
	})
	if err == nil {
		text, err = change(text)
	}
	if err != nil {
		return err
	}
	return c.change(ctx, "describe the saved state "+file, func(l *libvirt.Libvirt) error { return l.DomainSaveImageDefineXML(file, text, 0) })
}

// Machines are the machine types that libvirt's host has for an architecture, with their aliases.
func (c *Conn) Machines(ctx context.Context, arch string) (names []string, err error) {
	var text string
	err = c.ask(ctx, "ask for libvirt's capabilities", func(l *libvirt.Libvirt) error {
		text, err = l.ConnectGetCapabilities()
		return err
	})
	if err != nil {
		return nil, err
	}
	var caps struct {
		Guests []struct {
			Arch struct {
				Name     string    `xml:"name,attr"`
				Machines []machine `xml:"machine"`
				Domains  []struct {
					Machines []machine `xml:"machine"`
				} `xml:"domain"`
			} `xml:"arch"`
		} `xml:"guest"`
	}
	if err := xml.Unmarshal([]byte(text), &caps); err != nil {
		return nil, fmt.Errorf("read libvirt's capabilities: %w", err)
	}
	for _, g := range caps.Guests {
		if g.Arch.Name != arch {
			continue
		}
		machines := g.Arch.Machines
		for _, d := range g.Arch.Domains {
			machines = append(machines, d.Machines...)
		}
		for _, m := range machines {
			names = append(names, m.Name, m.Canonical)
		}
	}
	return names, nil
}

type machine struct {
	Name      string `xml:",chardata"`
	Canonical string `xml:"canonical,attr"`
}

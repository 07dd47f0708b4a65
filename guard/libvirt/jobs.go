// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"encoding/xml"

	"imgward/guard/role"
)

// jobs are the images that libvirt's private <blockjobs> and <backups> elements name: where a copy or backup goes,
// and the chain of a disk that was unplugged while its job goes on. libvirtxml does not know these elements, and
// they differ from version to version (qemuDomainObjPrivateXMLFormatBlockjobs), so every source in them counts.
type jobs struct{ images []Image }

// UnmarshalXML implements xml.Unmarshaler.
func (j *jobs) UnmarshalXML(d *xml.Decoder, _ xml.StartElement) error {
	i := Image{Role: role.Scratch, Writable: true}
	for depth := 1; depth > 0; {
		t, err := d.Token()
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.EndElement:
			depth--
		case xml.StartElement:
			depth++
			j.start(&i, t)
		}
	}
	return nil
}

// start takes what an element says: i is what is known so far of the image that comes next.
func (j *jobs) start(i *Image, t xml.StartElement) {
	switch t.Name.Local {
	case "blockjob":
		*i = Image{Role: role.Scratch, Writable: true}
		if attr(t, "type") == "copy" {
			i.Role = role.Mirror
		}
	case "disk":
		i.Target, i.Format = attr(t, "dst")+attr(t, "name"), "" // one of the two is there
	case "store":
		i.Format = attr(t, "format")
	case "driver", "format":
		i.Format = attr(t, "type")
	case "source", "scratch", "target":
		for _, name := range []string{"file", "dev"} {
			if i.Path = attr(t, name); i.Path != "" {
				i.Format = knownFormat(i.Format)
				j.images = append(j.images, *i)
			}
		}
	}
}

func attr(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// Volumes resolves a volume of a storage pool to its path; false if the pool is not known.
type Volumes func(pool, volume string) (path string, ok bool)

// status is the part of a status file that is wanted. The decoder skips the rest.
type status struct {
	XMLName xml.Name `xml:"domstatus"`
	State   string   `xml:"state,attr"`
	PID     string   `xml:"pid,attr"`
	Jobs    jobs     `xml:"blockjobs"`
	Backups jobs     `xml:"backups"`
	Domain  domain   `xml:"domain"`
}

// definition is what a persistent domain's file has for a root element.
type definition struct {
	XMLName xml.Name `xml:"domain"`
	domain
}

type domain struct {
	Name    string              `xml:"name"`
	UUID    string              `xml:"uuid"`
	OS      libvirtxml.DomainOS `xml:"os"`
	Devices devices             `xml:"devices"`
}

type devices struct {
	Emulator    string                  `xml:"emulator"`
	Disks       []libvirtxml.DomainDisk `xml:"disk"`
	Filesystems []struct {
		Source struct {
			File string `xml:"file,attr"`
			Dev  string `xml:"dev,attr"`
		} `xml:"source"`
		Target struct {
			Dir string `xml:"dir,attr"`
		} `xml:"target"`
		Driver struct {
			Format string `xml:"format,attr"`
		} `xml:"driver"`
	} `xml:"filesystem"`
	Memories []struct {
		Path string `xml:"source>path"`
	} `xml:"memory"`
}

// Parse reads one status file. The text may be anything: Parse does not panic, and takes time and memory in proportion
// to its length. notes are remarks about images that could not be named, such as a volume of a pool that is not known.
func Parse(text []byte, volumes Volumes) (d *Domain, notes []string, err error) {
	var s status
	if err := decode(text, &s); err != nil {
		return nil, nil, fmt.Errorf("not a domain status file: %w", err)
	}
	pid, err := parsePID(s.PID)
	if err != nil {
		return nil, nil, err
	}
	c := collector{volumes: volumes}
	if d, err = c.domain(&s.Domain); err != nil {
		return nil, nil, fmt.Errorf("not a domain status file: %w", err)
	}
	d.PID, d.State = pid, s.State
	c.jobs(s.Jobs)
	c.jobs(s.Backups)
	d.Images = c.images
	return d, c.notes, nil
}

// ParseDefinition reads the file of a persistent domain (/etc/libvirt/qemu/NAME.xml) as Parse reads a status file. There
// is no pid in it, and mostly no backing chain.
func ParseDefinition(text []byte, volumes Volumes) (d *Domain, notes []string, err error) {
	var s definition
	if err := decode(text, &s); err != nil {
		return nil, nil, fmt.Errorf("not a domain definition: %w", err)
	}
	c := collector{volumes: volumes}
	if d, err = c.domain(&s.domain); err != nil {
		return nil, nil, fmt.Errorf("not a domain definition: %w", err)
	}
	d.Images = c.images
	return d, c.notes, nil
}

func decode(text []byte, into any) error {
	if len(text) > MaxFile {
		return fmt.Errorf("it is larger than %d MiB", MaxFile>>20)
	}
	d := newDecoder(text)
	if err := d.Decode(into); err != nil {
		return err
	}
	for { // a file with something behind its end was not written by libvirt
		switch t, err := d.Token(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		default:
			if _, ok := t.(xml.StartElement); ok {
				return errors.New("it has more than one root element")
			}
		}
	}
}

// domain gathers what both kinds of file have.
func (c *collector) domain(d *domain) (*Domain, error) {
	if d.Name == "" {
		return nil, errors.New("it names no domain")
	}
	for i := range d.Devices.Disks {
		c.disk(&d.Devices.Disks[i])
	}
	c.os(&d.OS)
	c.otherDevices(&d.Devices)
	return &Domain{Name: d.Name, UUID: d.UUID, Emulator: strings.TrimSpace(d.Devices.Emulator)}, nil
}

// parsePID takes 0, -1 and a missing attribute alike: some drivers (libxl) have no process to name.
func parsePID(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	pid, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("not a domain status file: pid=%q", s)
	}
	return max(pid, 0), nil
}

package libvirt

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"

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
	Domain  struct {
		Name    string              `xml:"name"`
		UUID    string              `xml:"uuid"`
		OS      libvirtxml.DomainOS `xml:"os"`
		Devices devices             `xml:"devices"`
	} `xml:"domain"`
}

type devices struct {
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
	if len(text) > MaxFile {
		return nil, nil, fmt.Errorf("it is larger than %d MiB", MaxFile>>20)
	}
	var s status
	if err := newDecoder(text).Decode(&s); err != nil {
		return nil, nil, fmt.Errorf("not a domain status file: %w", err)
	}
	if s.Domain.Name == "" {
		return nil, nil, errors.New("not a domain status file: it names no domain")
	}
	pid, err := parsePID(s.PID)
	if err != nil {
		return nil, nil, err
	}
	c := collector{volumes: volumes}
	for i := range s.Domain.Devices.Disks {
		c.disk(&s.Domain.Devices.Disks[i])
	}
	c.jobs(s.Jobs)
	c.jobs(s.Backups)
	c.os(&s.Domain.OS)
	c.otherDevices(&s.Domain.Devices)
	return &Domain{
		Name: s.Domain.Name, UUID: s.Domain.UUID, PID: pid, State: s.State, Images: c.images,
	}, c.notes, nil
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

// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"encoding/xml"
	"fmt"
)

// Snapshot is what a snapshot's metadata (/var/lib/libvirt/qemu/snapshot/DOMAIN/SNAPSHOT.xml) says of the guest's memory.
type Snapshot struct {
	Name   string
	Memory string // the file that holds it; empty: none, or inside a disk
}

// ParseSnapshot reads a snapshot's metadata. The text may be anything, as for Parse.
func ParseSnapshot(text []byte) (Snapshot, error) {
	var s struct {
		XMLName xml.Name `xml:"domainsnapshot"`
		Name    string   `xml:"name"`
		Memory  struct {
			Snapshot string `xml:"snapshot,attr"`
			File     string `xml:"file,attr"`
		} `xml:"memory"`
	}
	if err := decode(text, &s); err != nil {
		return Snapshot{}, fmt.Errorf("not the metadata of a snapshot: %w", err)
	}
	found := Snapshot{Name: s.Name}
	if s.Memory.Snapshot == "external" {
		found.Memory = s.Memory.File
	}
	return found, nil
}

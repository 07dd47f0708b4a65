// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
)

// Pools finds volumes by the definitions of libvirt's storage pools. A domain with <disk type='volume'> names only pool
// and volume, also in its status file (seen with libvirt 9.0).
type Pools struct {
	// Dirs hold NAME.xml files, the state of active pools before the definition of inactive ones: /run/libvirt/storage,
	// /etc/libvirt/storage.
	Dirs []string
}

// Path is a Volumes: the pool's target path and the volume's name. That is how libvirt builds the path in directory,
// file system, network file system, disk and LVM pools.
func (p Pools) Path(pool, volume string) (string, bool) {
	if pool == "" || strings.ContainsRune(pool, '/') {
		return "", false
	}
	for _, dir := range p.Dirs {
		if target := poolTarget(filepath.Join(dir, pool+".xml")); target != "" {
			return filepath.Join(target, volume), true
		}
	}
	return "", false
}

// poolTarget reads <target><path> of a pool's definition, or of its state file, where <pool> is one level deeper.
func poolTarget(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := readBounded(f, MaxFile)
	if err != nil {
		return ""
	}
	var def struct {
		Path  string `xml:"target>path"`
		State struct {
			Path string `xml:"target>path"`
		} `xml:"pool"`
	}
	if err := xml.NewTokenDecoder(&shallow{raw: xml.NewDecoder(strings.NewReader(string(text)))}).Decode(&def); err != nil {
		return ""
	}
	if def.Path != "" {
		return def.Path
	}
	return def.State.Path
}

// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"imgward/guard/role"
)

// expand replaces a json:{} pseudo-file name (qemu(1), "json:") by the files that it speaks of.
func (r ref) expand() ([]ref, error) {
	text, ok := strings.CutPrefix(r.name, "json:")
	if !ok || r.literal {
		return []ref{r}, nil
	}
	var options map[string]any
	if err := json.Unmarshal([]byte(text), &options); err != nil {
		return nil, fmt.Errorf("its backing file name %.60q cannot be read: %w", r.name, err)
	}
	return node(nest(options), r.format, r.role), nil
}

// plain reports whether what is read under this name is one file of one format, as the file alone would be read. Options of a
// json:{} name may say otherwise: a part of a file (offset, size), another backing file or none, a key, a driver in between.
func (r ref) plain() bool {
	text, ok := strings.CutPrefix(r.name, "json:")
	if !ok || r.literal {
		return true
	}
	var options map[string]any
	if json.Unmarshal([]byte(text), &options) != nil {
		return false
	}
	top := nest(options)
	if file, ok := top["file"].(map[string]any); ok {
		return onlyHas(top, "driver", "file") && isFormat(top["driver"]) && onlyHas(file, "driver", "filename") && file["filename"] != nil
	}
	return onlyHas(top, "driver", "filename") && !isFormat(top["driver"])
}

// onlyHas reports whether a node has no options but these and those that change nothing of what is read.
func onlyHas(options map[string]any, keys ...string) bool {
	for key := range options {
		switch key {
		case "node-name", "read-only", "auto-read-only", "force-share", "discard", "detect-zeroes", "cache", "aio", "locking":
		default:
			if !slices.Contains(keys, key) {
				return false
			}
		}
	}
	return true
}

// isFormat: the driver reads a format, and passes nothing through.
func isFormat(driver any) bool {
	switch driver {
	case "qcow2", "qcow", "qed", "raw", "vmdk", "vdi", "vpc", "vhdx":
		return true
	}
	return false
}

// nest turns dotted keys into objects: {"file.driver": "x"} is {"file": {"driver": "x"}}.
func nest(flat map[string]any) map[string]any {
	nested := make(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(flat)) {
		value := flat[key]
		if object, ok := value.(map[string]any); ok {
			value = nest(object)
		}
		at, parts := nested, strings.Split(key, ".")
		for _, part := range parts[:len(parts)-1] {
			below, ok := at[part].(map[string]any)
			if !ok {
				below = make(map[string]any)
				at[part] = below
			}
			at = below
		}
		at[parts[len(parts)-1]] = value
	}
	return nested
}

// node lists the files of a block node and of those below it. format is what the node above takes its contents for.
func node(options map[string]any, format string, as role.Role) []ref {
	driver, _ := options["driver"].(string)
	name, named := options["filename"].(string)
	switch {
	case driver == "file" || driver == "host_device" || driver == "host_cdrom":
		return []ref{{name: name, format: format, role: as, literal: true}}
	case driver == "" && named:
		return []ref{{name: name, format: format, role: as}}
	case driver != "":
		format = driver
	}
	if isFilter(driver) {
		format = "" // it says nothing of what is below it
	}
	var refs []ref
	for _, key := range slices.Sorted(maps.Keys(options)) {
		below, ok := options[key].(map[string]any)
		switch {
		case !ok:
		case key == "backing":
			refs = append(refs, node(below, "", role.Backing)...)
		case key == "data-file":
			refs = append(refs, node(below, "raw", role.DataFile)...)
		default: // "file", "image", "children", "0", …
			refs = append(refs, node(below, format, as)...)
		}
	}
	return refs
}

// isFilter names the drivers that pass through what is below them.
func isFilter(driver string) bool {
	switch driver {
	case "blkdebug", "blklogwrites", "blkverify", "compress", "copy-before-write", "copy-on-read", "preallocate",
		"quorum", "replication", "snapshot-access", "throttle":
		return true
	}
	return false
}

package chain

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
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
func node(options map[string]any, format string, role Role) []ref {
	driver, _ := options["driver"].(string)
	name, named := options["filename"].(string)
	switch {
	case driver == "file" || driver == "host_device" || driver == "host_cdrom":
		return []ref{{name: name, format: format, role: role, literal: true}}
	case driver == "" && named:
		return []ref{{name: name, format: format, role: role}}
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
			refs = append(refs, node(below, "", Backing)...)
		case key == "data-file":
			refs = append(refs, node(below, "raw", DataFile)...)
		default: // "file", "image", "children", "0", …
			refs = append(refs, node(below, format, role)...)
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

package blockdev

import (
	"os"
	"path/filepath"
)

// Under reports whether the block device with number below carries the one with number dev: it is the same, the disk of
// that partition, or what it is stacked on, through any number of layers.
func Under(below, dev uint64) bool { return under("/sys", number(below), number(dev), 0) }

// maxLayers ends a search through a sysfs that goes round in circles.
const maxLayers = 16

func under(root, below, dev string, depth int) bool {
	if below == dev {
		return true
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(root, "dev/block", dev))
	if err != nil || depth == maxLayers {
		return false
	}
	lower := []string{}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		lower = append(lower, line(filepath.Dir(dir), "dev"))
	}
	for _, name := range names(filepath.Join(dir, "slaves")) {
		lower = append(lower, line(filepath.Join(dir, "slaves", name), "dev"))
	}
	for _, l := range lower {
		if l != "" && under(root, below, l, depth+1) {
			return true
		}
	}
	return false
}

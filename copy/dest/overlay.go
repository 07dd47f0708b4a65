// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/chain"
)

// maxNeighbours bounds the search for overlays: a directory of images has hundreds of files.
const maxNeighbours = 2000

// overlaysOf names the qcow2 images in the directory of path that have the image behind f in their backing chain. No
// machine need be running for them to break when it changes.
func overlaysOf(ctx context.Context, f *os.File, path string) (overlays []string) {
	var base unix.Stat_t
	if unix.Fstat(int(f.Fd()), &base) != nil {
		return nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil
	}
	defer dir.Close()
	entries, _ := dir.ReadDir(maxNeighbours)
	for _, e := range entries {
		name := filepath.Join(dir.Name(), e.Name())
		if e.Type().IsRegular() && name != path && isQcow2(name) && leadsTo(ctx, name, &base) {
			overlays = append(overlays, name)
		}
	}
	return overlays
}

func isQcow2(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [4]byte
	_, err = f.ReadAt(magic[:], 0)
	return err == nil && string(magic[:]) == "QFI\xfb"
}

// leadsTo goes as far down the chain as it can be read.
func leadsTo(ctx context.Context, path string, base *unix.Stat_t) bool {
	links, _ := chain.Read(ctx, guard.HostDirect{}.Open, path, "qcow2")
	for _, l := range links {
		var st unix.Stat_t
		if unix.Stat(l.Path, &st) == nil && SameInode(&st, base) {
			return true
		}
	}
	return false
}

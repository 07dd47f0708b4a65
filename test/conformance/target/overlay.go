// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Overlay is overlayfs, all of whose files are in its upper layer, without index and nfs_export, as containers have it: it
// has no file handles that open_by_handle_at(2) takes.
type Overlay struct {
	Dir string // where it is mounted
}

// NewOverlay mounts one at dir, an empty directory; its layers are made beside that.
func NewOverlay(dir string) (*Overlay, error) {
	layers := dir + ".layers"
	options := "index=off,nfs_export=off"
	for _, layer := range []string{"lower", "upper", "work"} {
		path := filepath.Join(layers, layer+"dir")
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
		options += fmt.Sprintf(",%sdir=%s", layer, path)
	}
	return &Overlay{dir}, wrap(unix.Mount("overlay", dir, "overlay", 0, options), "mount overlayfs at "+dir)
}

// Close unmounts it and removes its layers.
func (o *Overlay) Close() error { return errors.Join(unmount(o.Dir), os.RemoveAll(o.Dir+".layers")) }

// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"imgward/copy/domain/archive"
	"imgward/guard/chain"
)

// header makes the beginning of the copy of an image that names others: its backing file relative, so that the copy stands on
// its own wherever it is moved, and never on the original, which the same host may well see under the same name. The name of
// an external data file QEMU takes from its own directory: it is absolute, and restoring writes it anew. nil: it names none.
func (r *run) header(f *archive.File) func(io.ReaderAt) ([]byte, error) {
	if f.Backing == "" && f.Data == "" {
		return nil
	}
	m := r.a.Manifest()
	return func(src io.ReaderAt) ([]byte, error) {
		if f.Format != "qcow2" {
			return nil, fmt.Errorf("%s is %s and names other files, which cannot be rewritten for a copy: convert it with qemu-img", f.Source, f.Format)
		}
		h, err := chain.ReadHeader(src)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Source, err)
		}
		if f.Backing != "" {
			if h.Backing, err = backingName(f); err != nil {
				return nil, err
			}
			h.Format = m.Find(f.Backing).Format
		}
		if f.Data != "" {
			if h.DataFile, err = filepath.Abs(r.a.Path(f.Data)); err != nil {
				return nil, err
			}
		}
		return h.Encode()
	}
}

// backingName is the name of a copy's backing file in its header.
func backingName(f *archive.File) (string, error) {
	name, err := filepath.Rel(path.Dir(f.Path), f.Backing)
	if strings.Contains(name, ":") { // what stands before it would be a protocol
		name = "./" + name
	}
	return name, err
}

// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/checkpoint"
	"imgward/copy/digest"
	"imgward/copy/domain/archive"
)

// maxSmall bounds what is read at once: firmware variables and TPM state, which QEMU and swtpm have open and locked, and kernels.
const maxSmall = 1 << 30

// small copies one. What changes under the reader is read until it comes out the same twice.
func (r *run) small(f *archive.File) error {
	b, err := readSmall(f.Source)
	for try := 0; err == nil; try++ {
		const tries = 10
		var again []byte
		if again, err = readSmall(f.Source); bytes.Equal(b, again) {
			break
		}
		if b = again; err == nil && try == tries {
			err = fmt.Errorf("%s changes all the time", f.Source)
		}
	}
	if err != nil {
		return err
	}
	f.Size, f.BLAKE3 = int64(len(b)), sumOf(b)
	return r.a.WriteFile(f.Path, b)
}

func readSmall(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(b) > maxSmall {
		err = fmt.Errorf("%s is larger than 1 GiB", name)
	}
	return b, err
}

// sumOf is the digest of a small file, as of an image.
func sumOf(b []byte) string {
	t := digest.New(digest.BLAKE3, int64(len(b)))
	for off := 0; off < len(b); off += digest.Leaf {
		t.Data(int64(off), b[off:min(off+digest.Leaf, len(b))])
	}
	return t.Root().String()
}

// reidentify takes the size and time of a source again.
func reidentify(f *archive.File) error {
	var st unix.Stat_t
	if err := unix.Stat(f.Source, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Source, Err: err}
	}
	size, err := sizeOf(f.Source, &st)
	if err != nil {
		return err
	}
	id := checkpoint.Identify(f.Source, &st, size)
	f.Identity, f.Size = &id, size
	if f.State.Whole() {
		f.State, f.BLAKE3 = archive.Pending, ""
	}
	return nil
}

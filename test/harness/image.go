// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/guest/block"
)

// MiB is 2^20 bytes.
const MiB = 1 << 20

// Image returns the path of an image of that name in the directory of images.
func (h *Host) Image(name string) string { return filepath.Join(h.Images, name) }

// Raw makes a raw image whose first half is random bytes, never zero, and whose second half is a hole.
func (h *Host) Raw(t testing.TB, name string, size int64) string {
	t.Helper()
	path := h.Image(name)
	data := make([]byte, size/2)
	random := rand.NewChaCha8([32]byte{byte(len(name))})
	random.Read(data)
	for i := range data {
		data[i] |= 1
	}
	err := os.WriteFile(path, data, 0o600)
	if err == nil {
		err = os.Truncate(path, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Blank makes an empty raw image.
func (h *Host) Blank(t testing.TB, name string, size int64) string {
	t.Helper()
	Run(t, "qemu-img", "create", "-q", "-f", "raw", h.Image(name), itoa(int(size))).OK(t)
	return h.Image(name)
}

// Qcow2 makes an empty qcow2 image.
func (h *Host) Qcow2(t testing.TB, name string, size int64) string {
	t.Helper()
	Run(t, "qemu-img", "create", "-q", "-f", "qcow2", h.Image(name), itoa(int(size))).OK(t)
	return h.Image(name)
}

// Overlay makes a qcow2 image over a backing file.
func (h *Host) Overlay(t testing.TB, name, backing, backingFormat string) string {
	t.Helper()
	Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", backingFormat, h.Image(name)).OK(t)
	return h.Image(name)
}

// Identity is what must not change when an operation on an image is refused.
type Identity struct {
	Dev, Ino uint64
	Size     int64
	Blocks   int64 // of 512 bytes, allocated
	Sum      string
	Names    []string // below the directory of images, sorted
}

// Identify takes the identity of an image in the backing directory, past the view.
func (h *Host) Identify(t testing.TB, image string) Identity {
	t.Helper()
	var st unix.Stat_t
	path := h.Beneath(t, image)
	if err := unix.Stat(path, &st); err != nil {
		t.Fatalf("stat %s beneath the view: %v", image, err)
	}
	return Identity{Dev: st.Dev, Ino: st.Ino, Size: st.Size, Blocks: st.Blocks, Sum: sum(t, path), Names: h.names(t, st.Ino)}
}

// names lists the names of an inode below the directory of images.
func (h *Host) names(t testing.TB, ino uint64) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(h.beneath+"/", func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil && st.Ino == ino {
			names = append(names, path[len(h.beneath)+1:])
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(names)
	return names
}

func sum(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// CheckImage checks a closed image against the account of the guest that wrote it: the image's own structure first
// (qcow2), then every block, read by qemu-img through the whole chain.
func (h *Host) CheckImage(t testing.TB, image, format string, account *block.Account) {
	t.Helper()
	if format == "qcow2" {
		Run(t, "qemu-img", "check", "-q", "-f", format, image).OK(t)
	}
	flat := filepath.Join(h.Out, filepath.Base(image)+".flat")
	defer os.Remove(flat)
	Run(t, "qemu-img", "convert", "-f", format, "-O", "raw", image, flat).OK(t)
	f, err := os.Open(flat)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, block.Size)
	wrong := 0
	for lba := range account.Blocks {
		_, err := f.ReadAt(buf, int64(lba*block.Size))
		if err = errors.Join(err, account.Check(lba, buf)); err != nil && wrong < 10 {
			t.Errorf("%s: %v", image, err)
			wrong++
		}
	}
}

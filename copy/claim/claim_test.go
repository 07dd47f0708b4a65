// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"imgward/copy/internal/testvol"
)

// TestRealImages makes images with the programs that own the formats, and cuts them in half.
func TestRealImages(t *testing.T) {
	for _, c := range []struct {
		name, what string
		size       int64
		exact      bool // the header knows the size to the block
		make       func(path string)
	}{
		{"ext4", "ext file system", 64 << 20, true, func(p string) { testvol.Run(t, "mkfs.ext4", "-q", "-F", p) }},
		{"xfs", "XFS file system", 320 << 20, true, func(p string) { testvol.Run(t, "mkfs.xfs", "-q", "-f", p) }},
		{"btrfs", "btrfs file system", 128 << 20, true, func(p string) { testvol.Run(t, "mkfs.btrfs", "-q", "-f", p) }},
		{"gpt", "GPT partition table", 32 << 20, true, func(p string) { testvol.GPT(t, p) }},
		{"mbr", "MBR partition table", 32 << 20, false, func(p string) { testvol.MBR(t, p, 2, 20480) }},
		{"qcow2", "qcow2 header", 0, false, func(p string) {
			testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", p, "1G")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			if c.size > 0 {
				if err := os.Rename(testvol.File(t, c.size), path); err != nil {
					t.Fatal(err)
				}
			}
			c.make(path)
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			st, _ := f.Stat()
			got, ok := Of(f)
			if !ok || got.What != c.what {
				t.Fatalf("claim %+v, %v; want a %s", got, ok, c.what)
			}
			if got.Bytes > st.Size() {
				t.Errorf("a whole image of %d bytes claims %d", st.Size(), got.Bytes)
			}
			if c.exact && got.Bytes != st.Size() {
				t.Errorf("claims %d, the image has %d", got.Bytes, st.Size())
			}
			if half := st.Size() / 4; got.Bytes <= half {
				t.Errorf("a quarter of the image (%d bytes) would pass: it claims %d", half, got.Bytes)
			}
		})
	}
}

func TestNoHeader(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 100), make([]byte, 1<<20), bytes.Repeat([]byte("database "), 10000)} {
		if c, ok := Of(bytes.NewReader(b)); ok {
			t.Errorf("%d bytes of nothing claim %+v", len(b), c)
		}
	}
}

func FuzzOf(f *testing.F) {
	for _, magic := range []string{"XFSB", "QFI\xfb", "hsqs"} {
		f.Add(append([]byte(magic), bytes.Repeat([]byte{0xff}, 2000)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := Of(bytes.NewReader(b)); ok && (c.Bytes <= 0 || c.What == "") {
			t.Fatalf("claim %+v", c)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReflinkAttr: a view says of its files whether copying them shares blocks, and says the truth. It lists no such
// attribute, and lets nobody set it.
func TestReflinkAttr(t *testing.T) {
	const attr = "system.imgward.reflink"
	atPlaces(t, func(t *testing.T, p *place) {
		if p.backing == "" {
			return
		}
		dir := freshDir(t, p)
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		want := "0"
		if clones(t, p.backing) {
			want = "1"
		}
		buf := make([]byte, 8)
		for _, path := range []string{file, dir} {
			if n, err := unix.Getxattr(path, attr, buf); err != nil || string(buf[:n]) != want {
				t.Errorf("%s of %s: %q, %v, want %q", attr, path, buf[:max(n, 0)], err, want)
			}
		}
		if n, err := unix.Listxattr(file, make([]byte, 1024)); n != 0 || err != nil {
			t.Errorf("%d bytes of attributes are listed, %v", n, err)
		}
		if err := unix.Setxattr(file, attr, []byte("1"), 0); err != unix.EOPNOTSUPP {
			t.Errorf("setting %s: %v, want EOPNOTSUPP", attr, err)
		}
	})
}

// clones says whether the file system of a directory has reflinks.
func clones(t *testing.T, dir string) bool {
	t.Helper()
	src, err := os.CreateTemp(dir, "clone")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(src.Name())
	defer src.Close()
	dst, err := os.CreateTemp(dir, "clone")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dst.Name())
	defer dst.Close()
	if _, err := src.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}

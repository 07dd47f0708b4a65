// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/conformance/target"
	"imgward/test/need"
)

// TestOverlay: the target that has no file handles has none, and a view over it serves.
func TestOverlay(t *testing.T) {
	for _, name := range []string{"native", "view"} {
		t.Run(name, func(t *testing.T) {
			p := newPlaceOn(t, name, "overlay")
			file := filepath.Join(p.dir, "file")
			if err := os.WriteFile(file, []byte("inside"), 0o600); err != nil {
				t.Fatal(err)
			}
			below := file
			if p.backing != "" {
				below = filepath.Join(p.backing, "file")
			}
			if _, _, err := unix.NameToHandleAt(unix.AT_FDCWD, below, 0); !errors.Is(err, unix.EOPNOTSUPP) {
				t.Errorf("name_to_handle_at: %v, want EOPNOTSUPP", err)
			}
			if b, err := os.ReadFile(below); string(b) != "inside" {
				t.Errorf("below: %q, %v", b, err)
			}
		})
	}
}

// TestOverlayBelow: the kernel passes nothing through to a file system that is stacked itself. One below the view takes
// the passthrough from its own files only.
func TestOverlayBelow(t *testing.T) {
	need.Have(t, need.View()...)
	work := workDir(t)
	tree := filepath.Join(work, "tree")
	stacked := filepath.Join(tree, "stacked")
	if err := os.MkdirAll(stacked, 0o755); err != nil {
		t.Fatal(err)
	}
	newOverlay(t, stacked)
	content := make([]byte, 1<<20)
	for _, name := range []string{"plain", "stacked/file"} {
		if err := os.WriteFile(filepath.Join(tree, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mount := startPeer(t, target.View, work, tree)
	// by is how much of a file's content the daemon reads when somebody reads the file.
	by := func(name string) (moved int) {
		for _, pid := range mount.Processes() {
			moved -= readChars(t, pid)
		}
		if n := readPieces(t, filepath.Join(mount.Dir, name)); n != len(content) {
			t.Fatalf("%s: %d bytes", name, n)
		}
		for _, pid := range mount.Processes() {
			moved += readChars(t, pid)
		}
		return moved
	}
	if by("plain") >= len(content) {
		need.Kernel(t, "FUSE passthrough (Linux 6.9)")
	}
	if moved := by("stacked/file"); moved < len(content) {
		t.Errorf("the daemon read %d bytes of the overlay's file", moved)
	}
	if moved := by("plain"); moved >= len(content) {
		t.Errorf("after that the daemon read %d bytes of a file that the kernel passed through before", moved)
	}
}

// readPieces reads a file in requests that are too small to be spliced, which nobody counts, and is how much there was.
func readPieces(t *testing.T, path string) (n int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil { // no read-ahead
		t.Fatal(err)
	}
	piece := make([]byte, 32<<10)
	for {
		m, err := f.Read(piece)
		if n += m; err == io.EOF {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// readChars is how many bytes a process has read so far.
func readChars(t *testing.T, pid int) (n int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(text), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

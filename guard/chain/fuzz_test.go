// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgward/guard/role"
)

// FuzzReferences: no header makes the reader panic, read without bound, or name more than it holds.
func FuzzReferences(f *testing.F) {
	dir := f.TempDir()
	for format, options := range map[string]string{"qcow2": "data_file=data", "qcow": "", "qed": "", "vmdk": "compat6=off"} {
		path := filepath.Join(dir, format)
		args := []string{"create", "-q", "-u", "-f", format, "-b", "base", "-F", format, path, "1M"}
		if options != "" {
			args = append(args, "-o", options)
		}
		if format == "vmdk" {
			args = []string{"create", "-q", "-f", format, path, "1M"}
		}
		cmd := exec.Command("qemu-img", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			f.Fatalf("%v: %s", err, out)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[:min(len(text), 8192)])
	}
	f.Add([]byte(vmdkSignature + "\nparentFileNameHint=\"a\"\nRW 1 FLAT \"b\" 0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, format := range []string{"", "qcow2", "qed", "vmdk"} {
			refs, _ := references(bytes.NewReader(text), format)
			for _, r := range refs {
				if !bytes.Contains(text, []byte(r.name)) {
					t.Errorf("%q is in no header", r.name)
				}
			}
		}
	})
}

// FuzzHeader: a header that can be read is read back as it was written, whatever the names, and never grows beyond its cluster.
func FuzzHeader(f *testing.F) {
	dir := f.TempDir()
	for compat, options := range map[string]string{"0.10": "", "1.1": ",data_file=data"} {
		path := filepath.Join(dir, compat)
		cmd := exec.Command("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "base", "-F", "raw", "-o", "compat="+compat+options, path, "1M")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			f.Fatalf("%v: %s", err, out)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[:min(len(text), 8192)], "another")
	}
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		h, err := ReadHeader(bytes.NewReader(text))
		if err != nil || strings.IndexByte(name, 0) >= 0 {
			return
		}
		h.Backing, h.Format = name, "raw"
		if h.DataFile != "" {
			h.DataFile = name
		}
		written, err := h.Encode()
		if err != nil {
			return
		}
		if int64(len(written)) > h.room {
			t.Fatalf("%d bytes in a cluster of %d", len(written), h.room)
		}
		again, err := ReadHeader(bytes.NewReader(written))
		if err != nil {
			t.Fatal(err)
		}
		if again.Backing != name || name != "" && again.Format != "raw" || again.DataFile != h.DataFile {
			t.Errorf("%q, %q and %q were written for %q", again.Backing, again.Format, again.DataFile, name)
		}
	})
}

// FuzzName: whatever a header names, what comes out is an absolute path below nothing that QEMU would not open.
func FuzzName(f *testing.F) {
	f.Add(`json:{"driver":"qcow2","file":{"driver":"file","filename":"/a"}}`)
	f.Add("nbd:unix:/x")
	f.Add("../a b")
	f.Fuzz(func(t *testing.T, name string) {
		refs, err := ref{name: name, role: role.Backing}.expand()
		if err != nil {
			return
		}
		for _, r := range refs {
			if p, ok := r.resolve("/dir/top"); ok && (p == "" || p[0] != '/' || strings.IndexByte(p, 0) >= 0) {
				t.Errorf("%q becomes %q", name, p)
			}
		}
	})
}

// FuzzRead: a tree of files that name each other comes to an end.
func FuzzRead(f *testing.F) {
	f.Add("b", "c", "a")
	f.Add("a", "a", "a")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		dir := t.TempDir()
		for name, text := range map[string]string{"a": a, "b": b, "c": c} {
			text = vmdkSignature + "\nparentFileNameHint=\"" + text + "\"\nRW 1 FLAT \"" + text + "x\"\n"
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		inside := func(path string) (*os.File, error) { // never a device of this host
			return os.Open(filepath.Join(dir, filepath.Base(path)))
		}
		links, _ := Read(context.Background(), inside, dir+"/a", "vmdk")
		if len(links) > MaxLinks {
			t.Errorf("%d links", len(links))
		}
	})
}

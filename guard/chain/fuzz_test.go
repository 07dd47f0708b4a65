package chain

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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

// FuzzName: whatever a header names, what comes out is an absolute path below nothing that QEMU would not open.
func FuzzName(f *testing.F) {
	f.Add(`json:{"driver":"qcow2","file":{"driver":"file","filename":"/a"}}`)
	f.Add("nbd:unix:/x")
	f.Add("../a b")
	f.Fuzz(func(t *testing.T, name string) {
		refs, err := ref{name: name, role: Backing}.expand()
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

// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imgward/guard/role"
)

// dir is where a test makes images with QEMU's own tool.
type dir struct {
	*testing.T
	path string
}

func newDir(t *testing.T) dir { return dir{t, t.TempDir()} }

func (d dir) file(name string) string { return filepath.Join(d.path, name) }

func (d dir) qemuImg(args ...string) {
	d.Helper()
	cmd := exec.Command("qemu-img", args...)
	cmd.Dir = d.path
	if out, err := cmd.CombinedOutput(); err != nil {
		d.Fatalf("qemu-img %v: %v\n%s", args, err, out)
	}
}

func (d dir) raw(name string) { d.Helper(); d.qemuImg("create", "-q", "-f", "raw", name, "1M") }

func openFile(path string) (*os.File, error) { return os.Open(path) }

// chain reads with this package; a reference to something that does not exist is an error of no interest here.
func (d dir) chain(top, format string) []string {
	d.Helper()
	links, err := Read(context.Background(), openFile, top, format)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.Fatal(err)
	}
	paths := []string{}
	for _, l := range links {
		paths = append(paths, string(l.Role)+" "+l.Path)
	}
	return paths
}

// qemuChain asks qemu-img for the same.
func (d dir) qemuChain(top, format string) []string {
	d.Helper()
	args := []string{"info", "-U", "--backing-chain", "--output=json"}
	if format != "" {
		args = append(args, "-f", format)
	}
	cmd := exec.Command("qemu-img", append(args, top)...)
	cmd.Dir, cmd.Stderr = d.path, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		d.Fatalf("qemu-img %v: %v", args, err)
	}
	var infos []struct {
		Filename string
		Specific struct {
			Data struct {
				DataFile string `json:"data-file"`
			}
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &infos); err != nil {
		d.Fatal(err)
	}
	paths := []string{}
	for i, info := range infos {
		if i > 0 {
			paths = append(paths, "backing "+info.Filename)
		}
		if data := info.Specific.Data.DataFile; data != "" {
			paths = append(paths, "data-file "+filepath.Join(d.path, data))
		}
	}
	return paths
}

func TestAgainstQEMU(t *testing.T) {
	for name, tc := range map[string]struct {
		make   func(d dir)
		top    string
		format string
		links  int
	}{
		"raw":        {func(d dir) { d.raw("top") }, "top", "raw", 0},
		"no backing": {func(d dir) { d.qemuImg("create", "-q", "-f", "qcow2", "top", "1M") }, "top", "qcow2", 0},
		"v3 over raw": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top")
		}, "top", "qcow2", 1},
		"v2 over v3 over raw": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "-b", d.file("base"), "-F", "raw", "mid")
			d.qemuImg("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-b", "mid", "-F", "qcow2", "top")
		}, "top", "qcow2", 2},
		"probed": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top")
		}, "top", "", 1},
		"external data file": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "-o", "data_file=top.data", "top")
		}, "top", "qcow2", 2},
		"qcow2 declared raw": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "mid")
			d.qemuImg("create", "-q", "-f", "qcow2", "-b", "mid", "-F", "raw", "top")
		}, "top", "qcow2", 1},
		"qcow2 opened as raw": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top")
		}, "top", "raw", 0},
		"large clusters": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", "-b", "base", "-F", "raw", "top")
		}, "top", "qcow2", 1},
		"small clusters": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "-b", "base", "-F", "raw", "top")
		}, "top", "qcow2", 1},
		"relative to the symbolic link": {func(d dir) {
			for _, sub := range []string{"a", "b"} {
				if err := os.Mkdir(d.file(sub), 0o755); err != nil {
					d.Fatal(err)
				}
				d.raw(sub + "/base")
			}
			d.qemuImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "a/top")
			if err := os.Symlink("../a/top", d.file("b/top")); err != nil {
				d.Fatal(err)
			}
		}, "b/top", "qcow2", 1},
		"dots": {func(d dir) {
			d.raw("base")
			if err := os.Mkdir(d.file("sub"), 0o755); err != nil {
				d.Fatal(err)
			}
			d.qemuImg("create", "-q", "-f", "qcow2", "-b", "../base", "-F", "raw", "sub/top")
		}, "sub/top", "qcow2", 1},
		"a protocol": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "-b", "file:"+d.file("base"), "-F", "raw", "top")
		}, "top", "qcow2", 1},
		"qcow": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow", "-b", "base", "-F", "raw", "top")
		}, "top", "qcow", 1},
		"qed over qcow2": {func(d dir) {
			d.qemuImg("create", "-q", "-f", "qcow2", "base", "1M")
			d.qemuImg("create", "-q", "-f", "qed", "-b", "base", "-F", "qcow2", "top")
		}, "top", "qed", 1},
		"qed over raw": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qed", "-b", "base", "-F", "raw", "top")
		}, "top", "qed", 1},
		"vmdk over vmdk": {func(d dir) {
			d.qemuImg("create", "-q", "-f", "vmdk", "base.vmdk", "1M")
			d.qemuImg("create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk")
		}, "top.vmdk", "vmdk", 1},
		"json": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "mid", "-b", "base", "-F", "raw")
			d.qemuImg("create", "-q", "-f", "qcow2", "-u", "-b",
				`json:{"driver":"qcow2","file":{"driver":"file","filename":"`+d.file("mid")+`"}}`, "-F", "qcow2", "top", "1M")
		}, "top", "qcow2", 2},
		"dotted json": {func(d dir) {
			d.raw("base")
			d.qemuImg("create", "-q", "-f", "qcow2", "-u", "-b",
				`json:{"driver":"raw","file.driver":"file","file.filename":"`+d.file("base")+`"}`, "-F", "raw", "top", "1M")
		}, "top", "qcow2", 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDir(t)
			tc.make(d)
			top := d.file(tc.top)
			want, got := d.qemuChain(top, tc.format), d.chain(top, tc.format)
			if diff := cmp.Diff(want, got, cmp.Comparer(samePath)); diff != "" {
				t.Error(diff)
			}
			if len(got) != tc.links {
				t.Errorf("%d links, want %d: %v", len(got), tc.links, got)
			}
		})
	}
}

// samePath: qemu-img prints some names as they are written, some as they are opened.
func samePath(a, b string) bool {
	role, pathA, _ := strings.Cut(a, " ")
	if i := strings.Index(pathA, `"filename": "`); i >= 0 { // a json:{} name
		pathA, _, _ = strings.Cut(pathA[i+len(`"filename": "`):], `"`)
	}
	return a == b || role+" "+filepath.Clean(pathA) == filepath.Dir(b)+"/"+filepath.Base(b)
}

// VMDK's extents are files of their own; qemu-img does not list them as a chain.
func TestVMDKExtents(t *testing.T) {
	d := newDir(t)
	d.qemuImg("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", "flat.vmdk", "1M")
	d.qemuImg("create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "split.vmdk", "3G")
	for top, want := range map[string][]string{
		"flat.vmdk":  {"data-file " + d.file("flat-flat.vmdk")},
		"split.vmdk": {"data-file " + d.file("split-s001.vmdk"), "data-file " + d.file("split-s002.vmdk")},
	} {
		if diff := cmp.Diff(want, d.chain(d.file(top), "vmdk")); diff != "" {
			t.Errorf("%s: %s", top, diff)
		}
	}
}

func TestNamesThatAreNoFiles(t *testing.T) {
	for _, name := range []string{
		"nbd://host/export", "nbd:unix:/run/x.sock", "rbd:pool/image", "https://host/a.qcow2", "json:{}",
		`json:{"driver":"nbd","server":{"type":"unix","path":"/x"}}`, `json:{"driver":"raw","file":"node0"}`,
		`json:{"driver":"qcow2","file":{"driver":"file","filename":"relative"}}`, "",
	} {
		d := newDir(t)
		if name != "" {
			d.qemuImg("create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "raw", "top", "1M")
		} else {
			d.qemuImg("create", "-q", "-f", "qcow2", "top", "1M")
		}
		if got := d.chain(d.file("top"), "qcow2"); len(got) != 0 {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestJSONNames(t *testing.T) {
	for name, want := range map[string][]ref{
		`json:{"driver":"qcow2","file":{"driver":"throttle","throttle-group":"g","file":{"driver":"file","filename":"/a"}}}`: {
			{"/a", "", role.Backing, true}},
		`json:{"driver":"quorum","children":{"0":{"driver":"raw","file":{"driver":"file","filename":"/a"}},"1":{"driver":"qcow2","file":{"filename":"/b"}}}}`: {
			{"/a", "raw", role.Backing, true}, {"/b", "qcow2", role.Backing, false}},
		`json:{"file.filename":"/a","driver":"qcow2","backing.driver":"raw","backing.file.driver":"host_device","backing.file.filename":"/dev/b","data-file":{"driver":"file","filename":"/c"}}`: {
			{"/dev/b", "raw", role.Backing, true}, {"/c", "raw", role.DataFile, true}, {"/a", "qcow2", role.Backing, false}},
		`json:{"driver":"file","filename":"/a:b"}`: {{"/a:b", "declared", role.Backing, true}},
	} {
		got, err := ref{name: name, format: "declared", role: role.Backing}.expand()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(ref{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, err := (ref{name: "json:{"}).expand(); err == nil {
		t.Error("half an object is read")
	}
}

func TestLoop(t *testing.T) {
	d := newDir(t)
	d.qemuImg("create", "-q", "-f", "qcow2", "-u", "-b", "b", "-F", "qcow2", "a", "1M")
	d.qemuImg("create", "-q", "-f", "qcow2", "-u", "-b", "a", "-F", "qcow2", "b", "1M")
	links, err := Read(context.Background(), openFile, d.file("a"), "qcow2")
	if !errors.Is(err, ErrLoop) || len(links) != 2 {
		t.Errorf("%v, %v", links, err)
	}
}

// A file may hold thousands of extents that all name each other: the list is bounded, and so is the time.
func TestTooLong(t *testing.T) {
	d := newDir(t)
	text := vmdkSignature + "\n"
	for i := range 3 * MaxLinks {
		text += `RW 1 FLAT "x` + strings.Repeat("y", i%7) + "\"\n"
	}
	if err := os.WriteFile(d.file("a"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	links, err := Read(context.Background(), openFile, d.file("a"), "vmdk")
	if !errors.Is(err, ErrTooLong) || len(links) != MaxLinks {
		t.Errorf("%d links, %v", len(links), err)
	}
}

func TestMissing(t *testing.T) {
	d := newDir(t)
	d.qemuImg("create", "-q", "-f", "qcow2", "-u", "-b", "gone", "-F", "qcow2", "top", "1M")
	links, err := Read(context.Background(), openFile, d.file("top"), "qcow2")
	if len(links) != 1 || links[0].Path != d.file("gone") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", links, err)
	}
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Read(ctx, openFile, "/x", "qcow2"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestPlain: what a json:{} name makes of a file is told from the file as it is.
func TestPlain(t *testing.T) {
	for name, want := range map[string]bool{
		"base": true, "nbd://host/x": true,
		`json:{"driver":"qcow2","file":{"driver":"file","filename":"/a"}}`:                                        true,
		`json:{"driver":"qcow2","file.driver":"file","file.filename":"/a","file.locking":"off","read-only":true}`: true,
		`json:{"driver":"host_device","filename":"/dev/a"}`:                                                       true,
		`json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"/a"}}`:                             false,
		`json:{"driver":"raw","size":"512","file.filename":"/a"}`:                                                 false,
		`json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"/a"}}`:                         false,
		`json:{"driver":"qcow2","file":{"driver":"raw","offset":1,"file":{"driver":"file","filename":"/a"}}}`:     false,
		`json:{"driver":"luks","key-secret":"s","file":{"driver":"file","filename":"/a"}}`:                        false,
		`json:{"driver":"raw","file":"node0"}`:                                                                    false,
	} {
		if got := (ref{name: name, role: role.Backing}).plain(); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

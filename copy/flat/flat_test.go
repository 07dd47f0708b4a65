// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"bytes"
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgward/copy/move"
)

func qemu(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

func openFile(path string) (*os.File, error) { return os.Open(path) }

// TestAgainstQEMU: what is written is what qemu-img convert writes, over chains of every kind that is read.
func TestAgainstQEMU(t *testing.T) {
	for name, options := range map[string]string{
		"version 2": "compat=0.10", "version 3": "compat=1.1", "small clusters": "cluster_size=512", "large clusters": "cluster_size=2M",
		"data file": "data_file=DIR/top.data",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			base, mid, top := dir+"/base", dir+"/mid", dir+"/top"
			qemu(t, "qemu-img", "create", "-q", "-f", "raw", base, "3M") // shorter than what is above it
			qemu(t, "qemu-io", "-f", "raw", "-c", "write -q -P 1 1M 64k", "-c", "write -q -P 2 2500k 572k", base)
			qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", "-o", options0(options), mid, "9M")
			qemu(t, "qemu-io", "-f", "qcow2", "-c", "write -q -P 3 3M 100k", "-c", "write -q -c -P 4 4M 2M", "-c", "write -q -P 5 8500k 700k", mid)
			qemu(t, "qemu-img", "snapshot", "-c", "before", mid)
			qemu(t, "qemu-io", "-f", "qcow2", "-c", "write -q -P 6 3M 10k", mid)
			qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", mid, "-F", "qcow2", "-o", string(bytes.ReplaceAll([]byte(options), []byte("DIR"), []byte(dir))), top)
			qemu(t, "qemu-io", "-f", "qcow2", "-c", "write -q -z 1M 32k", "-c", "write -q -P 7 5M 1M", "-c", "write -q -P 8 9436672 512", top)
			want := dir + "/want"
			qemu(t, "qemu-img", "convert", "-O", "raw", top, want)
			if got := write(t, top); !bytes.Equal(got, read(t, want)) {
				t.Error("not what qemu-img convert wrote")
			}
		})
	}
}

// options0 is for an image in the middle, which has no data file of its own.
func options0(options string) string {
	if options == "data_file=DIR/top.data" {
		return "compat=1.1"
	}
	return options
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, top string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if err := flatten(t, top, out); err != nil {
		t.Fatal(err)
	}
	return read(t, out)
}

func flatten(t testing.TB, top, to string) error {
	t.Helper()
	f, err := os.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	im, err := Open(context.Background(), f, top, openFile)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := new(move.Progress)
	for _, share := range []bool{true, false} {
		if err := im.Write(context.Background(), out, Options{Share: share, Progress: p}); err != nil {
			return err
		}
		if err := im.Compare(context.Background(), out, p); err != nil {
			return err
		}
	}
	return nil
}

// TestRefused: what is not read is refused, not misread.
func TestRefused(t *testing.T) {
	for name, options := range map[string]string{
		"zstd": "compression_type=zstd", "subclusters": "extended_l2=on", "encrypted": "encrypt.format=aes,encrypt.key-secret=s",
	} {
		top := t.TempDir() + "/top"
		qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", options, top, "1M")
		f, err := os.Open(top)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(context.Background(), f, top, openFile); err == nil {
			t.Errorf("%s is read", name)
		}
		f.Close()
	}
}

// TestCutOff: an image whose end is missing is no disk with zeroes there, as it is for QEMU. One may end in mid-cluster.
func TestCutOff(t *testing.T) {
	for _, options := range []string{"cluster_size=64k", "data_file=DIR/data"} {
		dir := t.TempDir()
		top, cut, end := dir+"/top", dir+"/data", int64(4<<20)
		qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", strings.ReplaceAll(options, "DIR", dir), top, "8M")
		qemu(t, "qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 4M", top)
		if options == "cluster_size=64k" {
			cut, end = top, int64(len(read(t, top)))
		}
		for _, c := range []struct {
			by    int64
			whole bool
		}{{1000, true}, {64 << 10, false}, {2 << 20, false}} {
			if err := os.Truncate(cut, end-c.by); err != nil {
				t.Fatal(err)
			}
			if err := flatten(t, top, dir+"/out"); (err == nil) != c.whole {
				t.Errorf("%s, cut by %d bytes: error %v", options, c.by, err)
			}
		}
	}
}

// FuzzQcow2: no tables make the reader panic, or go on without end.
func FuzzQcow2(f *testing.F) {
	path := f.TempDir() + "/a"
	qemu(f, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "64k")
	qemu(f, "qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1k", "-c", "write -q -c -P 2 4k 512", path)
	f.Add(read(f, path))
	f.Fuzz(func(t *testing.T, text []byte) {
		q, err := openQcow2(bytes.NewReader(text))
		if err != nil || q.size > 1<<20 { // more is only more of the same
			return
		}
		im := &Image{Size: q.size, layers: []layer{{name: "fuzzed", size: q.size, q: q, end: math.MaxInt64}}}
		end := int64(0)
		_ = im.each(context.Background(), func(s segment) error {
			if s.off != end || s.n <= 0 {
				t.Fatalf("%d bytes at %d after %d", s.n, s.off, end)
			}
			end += s.n
			if s.kind == compressed {
				_, _ = q.inflate(s.deep)
			}
			return nil
		})
	})
}

// SPDX-License-Identifier: Apache-2.0

package blockdev

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgward/copy/internal/testvol"
)

func inspect(t *testing.T, dev string) Info {
	t.Helper()
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i, err := Inspect(f)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestLoopDevice(t *testing.T) {
	dev := testvol.Device(t, testvol.MinSize)
	i := inspect(t, dev)
	if i.Free() != nil || len(i.Contents) != 0 || i.Name != filepath.Base(dev) {
		t.Errorf("an empty, unused device: %+v, %v", i, i.Free())
	}
	if !strings.Contains(i.String(), "volume") {
		t.Errorf("%q does not name the backing file", i)
	}
	dir := testvol.MountDevice(t, "xfs", dev)
	i = inspect(t, dev)
	if !slices.Equal(i.Mounts, []string{dir}) || i.Free() == nil {
		t.Errorf("mounted on %s: %+v", dir, i)
	}
	if !slices.Equal(i.Contents, []string{"XFS file system"}) {
		t.Errorf("contents %q", i.Contents)
	}
}

func TestSignatures(t *testing.T) {
	tool := func(args ...string) func(string) {
		return func(file string) { testvol.Run(t, append(args, file)...) }
	}
	for _, c := range []struct {
		name, want string
		make       func(file string)
	}{
		{"ext4", "ext file system", tool("mkfs.ext4", "-q", "-F")},
		{"btrfs", "btrfs file system", tool("mkfs.btrfs", "-q", "-f")},
		{"swap", "swap space", tool("mkswap", "-q")},
		{"gpt", "GPT partition table", func(file string) { testvol.GPT(t, file) }},
		{"mbr", "MBR partition table", func(file string) { testvol.MBR(t, file, 1, 2048) }},
	} {
		file := testvol.File(t, 128<<20)
		c.make(file)
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Signatures(f)
		f.Close()
		if err != nil || !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	if got, err := Signatures(bytes.NewReader(nil)); err != nil || got != nil {
		t.Errorf("nothing: %q, %v", got, err)
	}
}

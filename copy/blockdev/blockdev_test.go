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

func TestLoopsOf(t *testing.T) {
	file := testvol.File(t, 1<<20)
	dev := testvol.Attach(t, file)
	for path, want := range map[string][]string{file: {dev}, testvol.File(t, 1): nil} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := LoopsOf(f); !slices.Equal(got, want) {
			t.Errorf("%s is attached as %q, want %q", path, got, want)
		}
		f.Close()
	}
}

// TestUnder has a sysfs of its own: a disk sda (8:0) with partitions sda1 and sda2 (8:1, 8:2), a logical volume dm-0
// (253:0) on sda2, and another disk.
func TestUnder(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"devices/sda/dev":            "8:0\n",
		"devices/sda/sda1/dev":       "8:1\n",
		"devices/sda/sda1/partition": "1\n",
		"devices/sda/sda2/dev":       "8:2\n",
		"devices/sda/sda2/partition": "2\n",
		"devices/dm-0/dev":           "253:0\n",
		"devices/sdb/dev":            "8:16\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"dev/block/8:0": "sda", "dev/block/8:1": "sda/sda1", "dev/block/8:2": "sda/sda2", "dev/block/253:0": "dm-0",
		"dev/block/8:16": "sdb", "devices/dm-0/slaves/sda2": "sda/sda2",
	} {
		path := filepath.Join(root, link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, "devices", to), path); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, below, dev string
		want             bool
	}{
		{"a device under itself", "8:1", "8:1", true},
		{"the disk under its partition", "8:0", "8:1", true},
		{"a partition under its disk", "8:1", "8:0", false},
		{"a partition under its neighbour", "8:1", "8:2", false},
		{"the partition under the volume", "8:2", "253:0", true},
		{"the disk under the volume", "8:0", "253:0", true},
		{"the neighbour under the volume", "8:1", "253:0", false},
		{"another disk", "8:16", "253:0", false},
	} {
		if got := under(root, c.below, c.dev, 0); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package testvol makes loop devices and file systems for tests, and takes them away again.
package testvol

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgward/test/need"
)

// Kinds are the file systems that images are kept on.
var Kinds = []string{"ext4", "xfs", "btrfs"}

// Root skips a test that mounts or attaches, unless it runs as root, as make test does.
func Root(t testing.TB) {
	t.Helper()
	need.Have(t, need.Root, need.Mounting, need.Loops)
}

// File is an empty file of size bytes.
func File(t testing.TB, size int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "volume"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// Attach shows a file as a loop device until the test ends. Flags are losetup's.
func Attach(t testing.TB, file string, flags ...string) string {
	t.Helper()
	Root(t)
	dev := Run(t, append(append([]string{"losetup", "--find", "--show"}, flags...), file)...)
	t.Cleanup(func() {
		Run(t, "losetup", "--detach", dev)
		detached(t, dev, file)
	})
	return dev
}

// detached waits until a device is no longer attached to a file: that is lazy, while anybody has it open for a moment.
func detached(t testing.TB, dev, file string) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		backing, err := os.ReadFile("/sys/block/" + filepath.Base(dev) + "/loop/backing_file")
		if err != nil || strings.TrimSpace(string(backing)) != file { // another's by now
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s is still attached to %s: somebody has it open", dev, file)
			return
		}
	}
}

// Device is a loop device of size bytes.
func Device(t testing.TB, size int64, flags ...string) string {
	t.Helper()
	return Attach(t, File(t, size), flags...)
}

// mkfs makes each kind; what btrfs and XFS would refuse of a small device is switched off.
var mkfs = map[string][]string{
	"ext4":           {"mkfs.ext4", "-q", "-F"},
	"ext4-blocks":    {"mkfs.ext4", "-q", "-F", "-b", "1024", "-O", "^extent,^64bit"}, // files of 16 GiB at most, none of them reserved
	"xfs":            {"mkfs.xfs", "-q", "-f"},
	"xfs-no-reflink": {"mkfs.xfs", "-q", "-f", "-m", "reflink=0"},
	"btrfs":          {"mkfs.btrfs", "-q", "-f"},
}

// MinSize is what XFS needs at least (xfsprogs 6.0).
const MinSize = 320 << 20

// Mount makes a file system of a kind on a loop device and returns where it is mounted.
func Mount(t testing.TB, kind string, size int64) string {
	t.Helper()
	return MountDevice(t, kind, Device(t, size))
}

// MountDevice makes a file system of a kind on a device and returns where it is mounted.
func MountDevice(t testing.TB, kind, dev string) string {
	t.Helper()
	Run(t, append(append([]string{}, mkfs[kind]...), dev)...)
	dir := filepath.Join(t.TempDir(), kind)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	Run(t, "mount", dev, dir)
	t.Cleanup(func() { Run(t, "umount", dir) })
	return dir
}

// Run runs a command and returns its output; the test ends if it fails.
func Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out))
	}
	return strings.TrimSpace(string(out))
}

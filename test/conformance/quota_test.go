// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestQuota: where a quota ends, whoever writes is told so, EDQUOT, and what was written before is there; with more, it goes
// on. It is btrfs's, for those bind every user and need nothing that a kernel may lack.
func TestQuota(t *testing.T) {
	for _, name := range []string{"view", "view-nopassthrough"} {
		t.Run(name, func(t *testing.T) {
			p := newPlaceOn(t, name, "btrfs")
			btrfs := func(args ...string) {
				t.Helper()
				if out, err := exec.Command("btrfs", append(args, p.scratch.Dir)...).CombinedOutput(); err != nil {
					t.Fatalf("btrfs %q: %v\n%s", args, err, out)
				}
			}
			btrfs("quota", "enable")
			btrfs("qgroup", "limit", "16M", "0/5")
			for _, flag := range []int{0, unix.O_DIRECT} {
				name := filepath.Join(p.dir, "image")
				f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC|flag, 0o644)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				block, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Munmap(block)
				written := 0
				for ; written < 1000 && err == nil; written++ {
					copy(block, bytes.Repeat([]byte{byte(written + 1)}, len(block)))
					_, err = unix.Pwrite(int(f.Fd()), block, int64(written*len(block)))
				}
				written-- // the last one failed
				if err != unix.EDQUOT || written < 10 {
					t.Fatalf("flags %#x: after %d blocks: %v, want EDQUOT", flag, written, err)
				}
				btrfs("qgroup", "limit", "64M", "0/5")
				for range 8 {
					if _, err := unix.Pwrite(int(f.Fd()), block, int64(written*len(block))); err != nil {
						t.Fatalf("flags %#x: with more of it: %v", flag, err)
					}
					written++
				}
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
				for _, way := range []string{name, filepath.Join(p.backing, "image")} {
					got, err := os.ReadFile(way)
					if err != nil || len(got) != written*len(block) {
						t.Fatalf("flags %#x: %s: %d bytes, %v, want %d", flag, way, len(got), err, written*len(block))
					}
					for i := range written - 8 {
						if got[i*len(block)] != byte(i+1) || got[(i+1)*len(block)-1] != byte(i+1) {
							t.Fatalf("flags %#x: %s: block %d is not what was written", flag, way, i)
						}
					}
				}
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
				f.Close()
				for end := time.Now().Add(time.Minute); quotaUsed(t, p.scratch.Dir) > 1<<20; time.Sleep(10 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatal("the removed file still counts")
					}
					btrfs("filesystem", "sync") // the view is told of a close, and btrfs of free blocks, a little later
				}
				btrfs("qgroup", "limit", "16M", "0/5")
			}
		})
	}
}

// quotaUsed is how many bytes count against the limit of the file system's root.
func quotaUsed(t *testing.T, dir string) int64 {
	t.Helper()
	out, err := exec.Command("btrfs", "qgroup", "show", "--raw", dir).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "0/5" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("btrfs qgroup show: %v\n%s", err, out)
	return 0
}

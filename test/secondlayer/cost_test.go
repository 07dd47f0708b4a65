// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/lsm"
	"imgward/guard/policy"
	"imgward/test/need"
)

// TestCost prints what the layer costs, in instructions: the system calls that it sees on a file that nobody uses, without it,
// with it, and with "strict"; and time and memory for 10,000 images in use.
func TestCost(t *testing.T) {
	need.Long(t)
	r := guest(t).CountInstructions().Run(prelude + `
mount -t tmpfs -o size=300M t /mnt
echo x >/mnt/free
for turn in 1 2; do
	layer cost /mnt/free 'without'
	layer load vmm=/bin/qemu-storage-daemon || exit 1
	layer cost /mnt/free 'with'
	layer strict
	layer cost /mnt/free 'strict'
	layer lax
	[ $turn = 2 ] || layer remove
done
sleep 1000 & vm=$!
ulimit -n 20000
layer many /mnt 10000 $vm || exit 1
layer cost /mnt/free 'with 10,000 images in use'
T=/mnt/9999; PHASE='many running'
attempt rm 'rm $T'
`)
	t.Log(r.Stdout, r.Stderr)
	if judge(t, r.Stdout) != 1 || r.Exit != 0 {
		t.Errorf("exit %d", r.Exit)
	}
}

// cost prints how many nanoseconds some system calls take: instructions, where the guest counts those.
func cost(path, when string) error {
	opens := func(flags int) func() error {
		return func() error {
			fd, err := unix.Open(path, flags, 0)
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		}
	}
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	for _, c := range []struct {
		name string
		call func() error
	}{
		{"open for writing and close", opens(unix.O_RDWR)},
		{"open for reading and close", opens(unix.O_RDONLY)},
		{"write 4 KiB", func() error { _, err := unix.Pwrite(fd, b, 0); return err }},
		{"read 4 KiB", func() error { _, err := unix.Pread(fd, b, 0); return err }},
	} {
		// The least of some rounds: what a timer's interrupt costs is not the layer's.
		const rounds, calls = 20, 200
		least := time.Duration(math.MaxInt64)
		for range rounds {
			began := time.Now()
			for range calls {
				if err := c.call(); err != nil {
					return err
				}
			}
			least = min(least, time.Since(began))
		}
		fmt.Printf("%s, %s: %d each\n", c.name, when, least.Nanoseconds()/calls)
	}
	return nil
}

func declareMany(l *lsm.Layer, dir, number, vm string) error {
	n, err1 := strconv.Atoi(number)
	pid, err2 := strconv.Atoi(vm)
	if err := errors.Join(err1, err2, l.Process(pid, lsm.Holder)); err != nil {
		return err
	}
	images := make([]lsm.Image, n)
	for i := range images {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(path, []byte("image"), 0o600); err != nil {
			return err
		}
		f, err := os.OpenFile(path, unix.O_PATH, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		images[i] = lsm.Image{ID: guard.StatID(&st), Holders: []int{pid}, Deny: policy.AllOps, File: f}
	}
	before, began := slab(), time.Now()
	if err := l.Declare(images); err != nil {
		return err
	}
	fmt.Printf("%d images: %v the first time, %d KiB of the kernel's memory", n, time.Since(began), slab()-before)
	began = time.Now()
	if err := l.Declare(images); err != nil {
		return err
	}
	fmt.Printf("; %v when nothing has changed\n", time.Since(began))
	return nil
}

// slab is how much memory the kernel has given to its objects, in KiB.
func slab() (kib int) {
	text, _ := os.ReadFile("/proc/meminfo")
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "Slab:"); ok {
			fmt.Sscan(rest, &kib)
		}
	}
	return kib
}

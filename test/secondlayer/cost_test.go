// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"errors"
	"fmt"
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

// TestCost prints what the layer costs: opening for writing and closing, of a file that nobody uses, by turns without and
// with it; and time and memory for 10,000 images in use.
func TestCost(t *testing.T) {
	need.Long(t)
	r := guest(t).Run(prelude + `
mount -t tmpfs -o size=300M t /mnt
echo x >/mnt/free
for turn in 1 2 3; do
	layer openclose /mnt/free 20000 | sed 's/^/without: /'
	layer load vmm=/bin/qemu-storage-daemon || exit 1
	layer openclose /mnt/free 20000 | sed 's/^/with: /'
	[ $turn = 3 ] || layer remove
done
sleep 1000 & vm=$!
ulimit -n 20000
layer many /mnt 10000 $vm || exit 1
T=/mnt/9999; PHASE='many running'
attempt rm 'rm $T'
`)
	t.Log(r.Stdout, r.Stderr)
	if judge(t, r.Stdout) != 1 || r.Exit != 0 {
		t.Errorf("exit %d", r.Exit)
	}
}

// openClose prints how long an open(2) for writing and a close(2) take.
func openClose(path, times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	began := time.Now()
	for range n {
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	fmt.Printf("%d ns each\n", time.Since(began).Nanoseconds()/int64(n))
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

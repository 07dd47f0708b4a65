// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"imgward/copy/dest"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/move"
)

// place is a file system or device that images are copied between.
type place struct {
	name string
	dir  string // "" for a device
	dev  string
	link bool // has reflinks
}

// places makes one of each. The device is on a file of its own.
func places(t *testing.T) []place {
	p := []place{{name: "tmpfs", dir: tmpfs(t)}}
	for _, kind := range append(testvol.Kinds, "xfs-no-reflink") {
		dir := testvol.Mount(t, kind, testvol.MinSize)
		p = append(p, place{name: kind, dir: dir, link: kind == "xfs" || kind == "btrfs"})
	}
	return append(p, place{name: "device", dev: testvol.Device(t, deviceSize)})
}

const (
	imageSize  = 6*mib + 8*kib
	deviceSize = imageSize + mib
)

func tmpfs(t *testing.T) string {
	t.Helper()
	testvol.Root(t)
	dir := t.TempDir()
	testvol.Run(t, "mount", "-t", "tmpfs", "tmpfs", dir)
	t.Cleanup(func() { testvol.Run(t, "umount", dir) })
	return dir
}

// TestEveryPair copies random images between every two places, in several ways, and holds plan, account and result
// against one another.
func TestEveryPair(t *testing.T) {
	all := places(t)
	seed := uint64(0)
	for _, from := range all {
		for _, to := range all {
			seed++
			t.Run(from.name+" to "+to.name, func(t *testing.T) { copyPair(t, from, to, seed) })
		}
	}
}

func copyPair(t *testing.T, from, to place, seed uint64) {
	ways := []func(*Options){
		nil,
		func(o *Options) { o.Sync = false },
		func(o *Options) { o.Reflink, o.Verify = Never, true },
		func(o *Options) { o.Reflink, o.Direct, o.Requests = Never, Never, 1 },
	}
	for i, way := range ways {
		src, dst := source4(t, from, seed*10+uint64(i)), to.dev
		if dst == "" {
			dst = filepath.Join(to.dir, "copy")
		} else {
			dirty(t, dst)
		}
		if from.dev != "" && from.dev == to.dev {
			if _, err := tryCopy(src, dst, func(o *Options) { o.Overwrite = dest.Replace }); err == nil {
				t.Error("a device was copied onto itself")
			}
			return
		}
		options := Defaults()
		options.Overwrite = dest.Replace
		if way != nil {
			way(&options)
		}
		planned := planOf(t, src, dst, options)
		var done steps
		options.Explain = done.add
		options.Progress = new(move.Progress)
		r, err := Copy(context.Background(), src, dst, options)
		if err != nil {
			t.Fatalf("way %d: %v", i, err)
		}
		testimg.Same(t, src, dst)
		planned.check(t, src, r.Size)
		done.check(t, src, r.Size)
		if err := agree(planned, done); err != nil {
			t.Errorf("way %d: %v\nplanned %v\ndone %v", i, err, planned, done)
		}
		if shared := done[0].Method == move.MethodClone; shared != (options.Reflink == Auto && from.link && from.dir == to.dir) {
			t.Errorf("way %d: %s is not how this pair is best copied", i, done[0])
		}
		if to.dir != "" {
			noWaste(t, i, src, dst, from)
			testimg.Remove(t, dst)
		}
		if from.dir != "" {
			testimg.Remove(t, src)
		}
	}
}

// source4 makes the image in a place.
func source4(t *testing.T, p place, seed uint64) string {
	t.Helper()
	if p.dev == "" {
		return testimg.New(t, filepath.Join(p.dir, "image"), seed, imageSize)
	}
	image := testimg.New(t, filepath.Join(t.TempDir(), "image"), seed, deviceSize)
	testvol.Run(t, "dd", "if="+image, "of="+p.dev, "bs=1M", "conv=fsync", "status=none")
	return p.dev
}

// dirty leaves nothing of a device as zeroes, so that zeroes that were not written show.
func dirty(t *testing.T, dev string) {
	t.Helper()
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(testimg.Noise(testimg.Random(77), deviceSize), 0); err != nil {
		t.Fatal(err)
	}
}

// noWaste: the copy has no more blocks than its data needs, but for what a file system rounds up.
func noWaste(t *testing.T, way int, src, dst string, from place) {
	t.Helper()
	f, err := os.OpenFile(dst, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // delayed allocation is counted as reserved
		t.Fatal(err)
	}
	const slack = 128 * kib
	if got, want := move.Allocated(f), dataIn(t, src); got > want+slack && !(from.link && way < 2) {
		t.Errorf("way %d: %d bytes allocated for %d of data", way, got, want)
	}
}

// dataIn counts the blocks of 4 KiB that are not zeroes.
func dataIn(t *testing.T, path string) (n int64) {
	t.Helper()
	b := []byte(testimg.Content(t, path))
	for len(b) > 0 {
		block := b[:min(len(b), 4096)]
		if !move.IsZero(block) {
			n += 4096
		}
		b = b[len(block):]
	}
	return n
}

// steps is an account of a copy, planned or done.
type steps []move.Step

func (s *steps) add(step move.Step) { *s = append(*s, step) }

func planOf(t *testing.T, from, to string, o Options) (planned steps) {
	t.Helper()
	o.Progress = new(move.Progress)
	if err := Plan(context.Background(), from, to, o, planned.add); err != nil {
		t.Fatal("plan: ", err)
	}
	return planned
}

// check: the steps cover the image from end to end, and there is nothing but zeroes where none are moved.
func (s steps) check(t *testing.T, src string, size int64) {
	t.Helper()
	at := int64(0)
	f := testimg.Open(t, src)
	for _, step := range s {
		if step.Off != at || step.Len <= 0 {
			t.Fatalf("step %v does not follow byte %d", step, at)
		}
		at += step.Len
		switch step.Method {
		case move.MethodHole, move.MethodPunch, move.MethodZero:
			b := make([]byte, step.Len)
			if _, err := f.ReadAt(b, step.Off); err != nil || !move.IsZero(b) {
				t.Fatalf("step %v: there is data (%v)", step, err)
			}
		}
	}
	if at != size {
		t.Fatalf("the steps end at %d of %d", at, size)
	}
}

// agree: data moves as it was planned to; zeroes may have been found in it, and short holes are written to a device along
// with the data around them.
func agree(planned, done steps) error {
	for _, d := range done {
		p := planned.at(d.Off)
		same := p.Method == d.Method && p.Why == d.Why
		zeroes := d.Method == move.MethodHole || d.Method == move.MethodPunch || d.Method == move.MethodZero
		if !same && !zeroes && p.Method != move.MethodPunch {
			return fmt.Errorf("%v was planned as %v", d, p)
		}
	}
	return nil
}

func (s steps) at(off int64) move.Step {
	for _, step := range s {
		if off < step.Off+step.Len {
			return step
		}
	}
	return move.Step{}
}

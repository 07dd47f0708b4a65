// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

// The sizes decide: the time to move data is many times what a start of the program takes, and fits into memory with its
// copy. Only the small rows are about the start.
const (
	denseSize  = 2 * gib
	sparseSize = 40 * gib // with 1 GiB of data
	zeroSize   = gib
	combSize   = 256 * mib
	deviceSize = gib
	volumeSize = 6 * gib // the largest source, its copy, and room for a file system to breathe
)

// row is one line of the table: an image, and who copies it.
type row struct {
	name    string
	image   func(path string) error // makes the source
	tools   []tool
	durable []bool // measure with durability for everybody, without, or both
	cold    bool   // the source is not in the page cache
	target  string // a device instead of a new file
	source  string // a device instead of the image
	huge    bool   // too large to be compared byte by byte
	quick   bool   // milliseconds: more rounds
}

func rows(c *config, v *volume) []row {
	both, durable := []bool{true, false}, []bool{true}
	all := append(imgcps(c), peers...)
	size := denseSize / c.scale
	limits := append(all[:len(all):len(all)], limit(v.path("source", false), size))
	r := []row{
		{name: "dense", image: dense(size), tools: limits, durable: both, cold: true},
		{name: "dense-cached", image: dense(size), tools: all, durable: both},
		{name: "sparse", image: sparse(sparseSize/c.scale, gib/c.scale), tools: without(all, "dd"), durable: durable}, // dd fills the holes: minutes
		{name: "zeroes", image: writtenZeroes(zeroSize / c.scale), tools: all, durable: durable},
		{name: "comb", image: comb(combSize / c.scale), tools: all, durable: durable},
		{name: "create", tools: creators(c, size), durable: durable},
		{name: "small", image: dense(mib), tools: all, durable: durable, quick: true},
		{name: "empty", image: sparse(8*tib, 0), tools: without(all, "dd", "ddrescue", "nbdcopy"), durable: durable, huge: true, quick: true},
	}
	if v.name != "ext4" {
		r = append(r, row{name: "reflink", image: dense(size), tools: reflinkers(c), durable: durable, quick: true})
	}
	return r
}

// deviceRows copy between a file and a loop device.
func deviceRows(c *config, dev string) []row {
	durable := []bool{true}
	size := deviceSize / c.scale
	return []row{
		{name: "to-device", image: dense(size), tools: devicePeers(c), durable: durable, cold: true, target: dev},
		{name: "from-device", image: dense(size), tools: without(append(imgcps(c), peers...), "cp --sparse"), durable: durable, cold: true, source: dev},
	}
}

// viewRow copies through a view and beside it.
func viewRow(c *config) row {
	return row{name: "view", image: dense(denseSize / c.scale), tools: viewers(c), durable: []bool{true}, cold: true}
}

// dense is random data from end to end.
func dense(size int64) func(string) error {
	return func(path string) error { return write(path, size, func(f *os.File) error { return fill(f, 0, size) }) }
}

// sparse has data spread in runs of 1 MiB.
func sparse(size, data int64) func(string) error {
	return func(path string) error {
		return write(path, size, func(f *os.File) error {
			for i := range data / mib {
				if err := fill(f, i*(size/(data/mib))/(4*kib)*(4*kib), mib); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// writtenZeroes are zeroes that take up blocks.
func writtenZeroes(size int64) func(string) error {
	return func(path string) error {
		return write(path, size, func(f *os.File) error {
			b := make([]byte, mib)
			for off := int64(0); off < size; off += mib {
				if _, err := f.WriteAt(b, off); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// comb is 4 KiB of data and 4 KiB of hole in turn.
func comb(size int64) func(string) error {
	return func(path string) error {
		return write(path, size, func(f *os.File) error {
			b := make([]byte, 4*kib)
			rand.Read(b)
			for off := int64(0); off < size; off += 8 * kib {
				if _, err := f.WriteAt(b, off); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func write(path string, size int64, body func(*os.File) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := body(f); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return f.Sync()
}

func fill(f *os.File, off, n int64) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{io.NewOffsetWriter(f, off)}, io.LimitReader(rand.Reader, n), make([]byte, mib))
	return err
}

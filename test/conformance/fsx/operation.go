// SPDX-License-Identifier: Apache-2.0

package fsx

import "fmt"

type kind int

const (
	read kind = iota
	write
	appendTo
	truncate
	allocate // fallocate mode 0
	reserve  // KEEP_SIZE
	punch
	zero
	zeroKeep // ZERO_RANGE|KEEP_SIZE
	collapse
	insert
	copyRange
	sync
	reopen
	evict // drop the page cache's copy
	holes // every hole that SEEK_HOLE reports must read as zeroes
	kinds
)

var kindNames = [kinds]string{
	"read", "write", "append", "truncate", "allocate", "reserve", "punch", "zero", "zero-keep", "collapse", "insert",
	"copy-range", "sync", "reopen", "evict", "holes",
}

// way is how bytes get in and out.
type way int

const (
	buffered way = iota
	direct       // O_DIRECT
	mapped       // a shared mapping
	second       // another descriptor, opened later than the first
	ways
)

var wayNames = [ways]string{"buffered", "direct", "mapped", "second"}

// operation is one step. Offsets and lengths are in bytes.
type operation struct {
	kind   kind
	via    way
	offset int
	length int
	to     int  // where copyRange puts it
	fill   byte // what write writes, one more with each byte
}

func (o operation) String() string {
	return fmt.Sprintf("%s %s offset=%#x length=%#x to=%#x", kindNames[o.kind], wayNames[o.via], o.offset, o.length, o.to)
}

func (o operation) reads() bool { return o.kind == read }

// data is what a write writes: it tells any misplaced byte.
func (o operation) data() []byte {
	b := make([]byte, o.length)
	for i := range b {
		b[i] = o.fill + byte(i) + byte(i>>8)
	}
	return b
}

const block = 4096

// generate draws the next operation, one that is valid for the file as it is.
func (r *run) generate() operation {
	o := operation{kind: kind(r.random.IntN(int(kinds))), via: way(r.random.IntN(int(ways)))}
	o.fill = byte(1 + r.random.IntN(255))
	o.offset = r.random.IntN(r.cfg.MaxSize)
	// Mostly small, sometimes up to all that is left.
	limit := r.cfg.MaxSize - o.offset
	if r.random.IntN(4) > 0 {
		limit = min(limit, 20000)
	}
	o.length = 1 + r.random.IntN(limit)
	o.to = r.random.IntN(r.cfg.MaxSize)
	r.fit(&o)
	return o
}

// fit makes the operation possible.
func (r *run) fit(o *operation) {
	size := len(r.model)
	switch o.kind {
	case read, write:
		if o.via == direct && (!r.cfg.Unaligned || r.random.IntN(8) > 0) {
			o.offset, o.length = o.offset&^(block-1), max(block, o.length&^(block-1))
		}
		if o.via == mapped && o.kind == write {
			// A mapping cannot make the file longer.
			if size == 0 {
				o.via = buffered
				break
			}
			o.offset %= size
			o.length = min(o.length, size-o.offset)
		}
	case appendTo:
		if o.length = min(o.length, r.cfg.MaxSize-size); o.length == 0 {
			o.kind = sync
		}
	case collapse, insert:
		r.fitShift(o)
	case copyRange:
		r.fitCopy(o)
	}
	if o.kind == write {
		o.length = min(o.length, r.cfg.MaxSize-o.offset)
	}
}

func (r *run) fitShift(o *operation) {
	size := len(r.model)
	o.offset, o.length = o.offset&^(block-1), max(block, o.length&^(block-1))
	tooLong := o.kind == insert && size+o.length > r.cfg.MaxSize
	outside := o.offset >= size || (o.kind == collapse && o.offset+o.length >= size)
	if !r.cfg.Shift || tooLong || outside {
		o.kind = punch
	}
}

func (r *run) fitCopy(o *operation) {
	size := len(r.model)
	if size == 0 {
		o.kind, o.via = read, buffered
		return
	}
	if o.via == direct {
		// Whether an unaligned copy into O_DIRECT goes is each file system's own affair.
		o.via = second
	}
	o.offset %= size
	o.length = min(o.length, size-o.offset, r.cfg.MaxSize-o.to)
	overlap := o.to < o.offset+o.length && o.offset < o.to+o.length
	if overlap {
		o.kind, o.via = read, buffered
	}
}

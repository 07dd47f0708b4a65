// SPDX-License-Identifier: Apache-2.0

// Package flat reads a qcow2 image, with its backing chain and external data files, as the one disk that a guest sees, and
// writes that as a raw image.
//
// It reads what QEMU writes by default: clusters that are allocated, zeroed or compressed with zlib, internal snapshots next to
// the current state. Encrypted images, those compressed with zstd, and subclusters (extended_l2) are refused: qemu-img convert
// reads all of them.
package flat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"imgward/copy/backing"
	"imgward/copy/internal/sys"
	"imgward/guard/chain"
)

// ErrFormat says that the image, or one of its chain, is of a kind that is not read here.
var ErrFormat = errors.New("imgcp cannot read it")

// Image is a disk that is put together from files.
type Image struct {
	Size   int64    // of the disk
	Plain  bool     // one raw file: there is nothing to put together
	Others []string // the names of all files but the image's own

	opened []*os.File
	layers []layer // the nearest first
}

// layer is one image of the chain.
type layer struct {
	name string
	file *os.File // where its data is
	size int64    // beyond which it reads as zeroes
	end  int64    // of file
	q    *qcow2   // nil: raw
}

// Open puts together the disk of the image that f is; open opens the others. path is f's name, absolute.
func Open(ctx context.Context, f *os.File, path string, open chain.Open) (*Image, error) {
	var set backing.Set
	top, err := set.Add(ctx, func(name string) (*os.File, error) {
		if name == path { // or a snapshot of it
			return sys.Reopen(f, os.O_RDONLY)
		}
		return open(name)
	}, path, "")
	if err != nil {
		return nil, err
	}
	im := new(Image)
	for _, b := range set.Files {
		if b != top {
			im.Others = append(im.Others, b.Path)
		}
	}
	for b, of := top, f; b != nil; b = b.Backing {
		if of == nil {
			if of, err = open(b.Path); err != nil {
				break
			}
			im.opened = append(im.opened, of)
		}
		var l layer
		if l, err = im.layer(b, of, open); err != nil {
			break
		}
		im.layers, of = append(im.layers, l), nil
	}
	if err != nil {
		im.Close()
		return nil, err
	}
	im.Size, im.Plain = im.layers[0].size, im.layers[0].q == nil
	return im, nil
}

// Close closes what Open opened.
func (im *Image) Close() {
	for _, f := range im.opened {
		f.Close()
	}
}

func (im *Image) layer(b *backing.File, f *os.File, open chain.Open) (layer, error) {
	l := layer{name: b.Path, file: f}
	switch b.Format {
	case "raw":
		var err error
		l.size, err = f.Seek(0, io.SeekEnd) // a block device as well
		return l, err
	case "qcow2":
	default:
		return l, fmt.Errorf("%s (%s): %w", b.Path, b.Format, ErrFormat)
	}
	q, err := openQcow2(f)
	if err != nil {
		return l, fmt.Errorf("%s: %w", b.Path, err)
	}
	if b.Data != nil {
		if l.file, err = open(b.Data.Path); err != nil {
			return l, err
		}
		im.opened = append(im.opened, l.file)
	}
	l.q, l.size = q, q.size
	l.end, err = l.file.Seek(0, io.SeekEnd)
	return l, err
}

// kind is what a part of a disk is.
type kind int

const (
	zeroes     kind = iota
	data            // as it is in a file
	compressed      // one cluster
)

// segment is a part of the disk that is in one piece in one file.
type segment struct {
	off, n int64
	kind   kind
	from   *layer
	at     int64  // in from's file
	deep   uint64 // a compressed cluster's descriptor
}

// next is the segment that begins at off.
func (im *Image) next(off int64) (segment, error) {
	s := segment{off: off, n: im.Size - off}
	for i := range im.layers {
		l := &im.layers[i]
		if off >= l.size {
			return s, nil // a backing file that is shorter: zeroes
		}
		s.from = l
		found, err := l.find(&s)
		if err != nil {
			return s, fmt.Errorf("%s: %w", l.name, err)
		}
		if found {
			return s, nil
		}
	}
	return s, nil
}

// find says where the layer has what begins at s.off, and for how long; false: it has nothing there, for s.n bytes at most.
func (l *layer) find(s *segment) (bool, error) {
	if l.q == nil {
		s.n = min(s.n, l.size-s.off)
		return true, l.hole(s)
	}
	found, err := l.q.find(s)
	if at := s.at >> l.q.bits << l.q.bits; found && s.kind == data && at >= l.end {
		return false, fmt.Errorf("its file ends at %d, and there is data at %d: a part of it is missing", l.end, at)
	}
	return found, err
}

// hole sees what a raw file's file system knows.
func (l *layer) hole(s *segment) error {
	s.kind, s.at = data, s.off
	at, ok, err := sys.NextData(l.file, s.off)
	switch {
	case err != nil: // it knows no holes
		return nil
	case !ok:
		s.kind = zeroes
	case at > s.off:
		s.kind, s.n = zeroes, min(s.n, at-s.off)
	default:
		if end, err := sys.NextHole(l.file, s.off); err == nil && end > s.off {
			s.n = min(s.n, end-s.off)
		}
	}
	return nil
}

// each calls visit with the disk's segments in order, neighbours in one file merged.
func (im *Image) each(ctx context.Context, visit func(segment) error) error {
	var last segment
	for off := int64(0); off < im.Size; off = last.off + last.n {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s, err := im.next(off)
		if err != nil {
			return err
		}
		if last.continuedBy(s) {
			last.n += s.n
			continue
		}
		if last.n > 0 {
			if err := visit(last); err != nil {
				return err
			}
		}
		last = s
	}
	if last.n == 0 {
		return nil
	}
	return visit(last)
}

func (s segment) continuedBy(t segment) bool {
	return s.n > 0 && s.kind == t.kind && s.kind != compressed && (s.kind == zeroes || s.from == t.from && s.at+s.n == t.at)
}

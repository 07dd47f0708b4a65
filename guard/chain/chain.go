// SPDX-License-Identifier: Apache-2.0

// Package chain reads from image headers which other files an image consists of: its backing chain and external data
// files. It opens nothing for writing and takes no lock, as `qemu-img info -U` does.
//
// Headers are hostile input: a guest cannot write its own image's header, but images come from anywhere. So a format is
// what was declared for the image, and an image that was declared raw is never looked into: a guest writes there what
// it likes, also a header that names other files.
package chain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"imgward/guard/role"
)

// Link is one file that an image needs.
type Link struct {
	Path   string // absolute, if the image's own path was
	Format string // as declared above it, or as probed where nothing is declared
	Role   role.Role
	Depth  int // 1: named by the image itself
}

// Open opens a file for reading; the chain closes it.
type Open func(path string) (*os.File, error)

// MaxLinks bounds a chain; libvirt's own bound is 200 (VIR_STORAGE_MAX_CHAIN_DEPTH). VMDK extents count as well.
const MaxLinks = 1024

// Errors that end a chain. What was found before is returned with them.
var (
	ErrLoop    = errors.New("the backing chain is a loop")
	ErrTooLong = fmt.Errorf("the backing chain has more than %d files", MaxLinks)
)

// Read lists the files that the image at path needs, the nearest first. format is what was declared for it; empty: it
// is probed, as QEMU would.
//
// What cannot be opened is listed, and what is behind it is not; the error then says so (fs.PathError). Backing names
// that are no files of this host (nbd://, rbd:) are left out, without an error.
func Read(ctx context.Context, open Open, path, format string) (links []Link, err error) {
	err = Walk(ctx, open, path, format, func(l Link) { links = append(links, l) })
	return links, err
}

// Walk is Read for a chain that may lead to a file system that does not answer: found is told each link before the link
// itself is looked at.
func Walk(ctx context.Context, open Open, path, format string, found func(Link)) error {
	r := reader{ctx: ctx, open: open, found: found, above: make(map[inode]bool)}
	return r.read(path, format, 0)
}

// Direct lists the files that the image in r names itself, as Read would with those of them in turn, and the names that are
// no files of this host, or not read as the file alone would be. path is its name, absolute.
func Direct(r io.ReaderAt, path, format string) (links []Link, elsewhere []string, err error) {
	refs, err := references(r, format)
	if err != nil {
		return nil, nil, err
	}
	for _, written := range refs {
		files, err := written.expand()
		if err != nil {
			return nil, nil, err
		}
		if !written.plain() {
			elsewhere = append(elsewhere, written.name)
			continue
		}
		for _, ref := range files {
			if next, ok := ref.resolve(path); ok {
				links = append(links, Link{Path: next, Format: ref.format, Role: ref.role, Depth: 1})
			} else {
				elsewhere = append(elsewhere, ref.name)
			}
		}
		if len(files) == 0 {
			elsewhere = append(elsewhere, written.name)
		}
	}
	return links, elsewhere, nil
}

type reader struct {
	ctx   context.Context
	open  Open
	found func(Link)
	links int
	above map[inode]bool // the images on the way from the top to here
}

type inode struct{ dev, ino uint64 }

// read follows one image's references, depth first: a chain has few branches.
func (r *reader) read(path, format string, depth int) error {
	if leaf(format) {
		return nil
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	f, err := r.open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	id, err := inodeOf(f)
	if err != nil {
		return err
	}
	if r.above[id] {
		return fmt.Errorf("%s: %w", path, ErrLoop)
	}
	r.above[id] = true
	defer delete(r.above, id)

	refs, err := references(f, format)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return r.follow(path, refs, depth+1)
}

func (r *reader) follow(path string, refs []ref, depth int) error {
	var all []error
	for _, written := range refs {
		files, err := written.expand()
		if err != nil {
			all = append(all, fmt.Errorf("%s: %w", path, err))
		}
		for _, ref := range files {
			if err := r.add(path, ref, depth); err != nil {
				all = append(all, err)
			}
		}
	}
	return errors.Join(all...)
}

// add lists a file, and what is behind it.
func (r *reader) add(path string, ref ref, depth int) error {
	next, ok := ref.resolve(path)
	if !ok || next == path && ref.role == role.DataFile { // a VMDK that holds its own extent
		return nil
	}
	if r.links++; r.links > MaxLinks {
		return ErrTooLong
	}
	r.found(Link{Path: next, Format: ref.format, Role: ref.role, Depth: depth})
	return r.read(next, ref.format, depth)
}

func inodeOf(f *os.File) (inode, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return inode{}, err
	}
	var st unix.Stat_t
	var statErr error
	if err := conn.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) }); err != nil {
		return inode{}, err
	}
	return inode{st.Dev, st.Ino}, statErr
}

// ref is a reference as it stands in a header.
type ref struct {
	name   string
	format string // empty: not declared
	role   role.Role
	// literal: the name is a path and nothing else, without a protocol in front.
	literal bool
}

// leaf says whether images of a format refer to no others, so that they need not be opened. VHDX and VHD have parents,
// which QEMU refuses to open (vhdx_open, vpc_open).
func leaf(format string) bool {
	switch format {
	case "", "qcow2", "qcow", "qed", "vmdk":
		return false
	}
	return true
}

// references reads the header of an image of this format, or of the format that it looks like.
func references(r io.ReaderAt, format string) ([]ref, error) {
	if format == "" {
		var err error
		if format, err = Probe(r); err != nil {
			return nil, err
		}
	}
	switch format {
	case "qcow2", "qcow":
		return qcow(r)
	case "qed":
		return qed(r)
	case "vmdk":
		return vmdk(r)
	}
	return nil, nil
}

// readAt reads exactly n bytes. A file that ends before is a broken image.
func readAt(r io.ReaderAt, at int64, n int) ([]byte, error) {
	buf := make([]byte, n)
	if got, err := r.ReadAt(buf, at); got < n {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %d bytes of the header at %d: %w", n, at, err)
	}
	return buf, nil
}

// SPDX-License-Identifier: Apache-2.0

// Package backing knows the files that an image consists of (itself, its backing chain, external data files) as a unit to be
// copied: their names in a copy, and the headers that name each other there.
//
// A qcow2 overlay names its backing file by path. Copied as it is, it opens the original, another file of that relative name,
// or nothing. So copies name their neighbours, relative to their own directory, and the whole can be moved: but for external data files,
// which QEMU looks for in its own working directory, so that only an absolute name will do (qcow2_do_open in block/qcow2.c).
package backing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/chain"
	"imgward/guard/role"
)

// File is one file of an image.
type File struct {
	Path   string    // absolute, by which it was reached
	Format string    // as declared by the file that names it, else as probed
	Role   role.Role // of the image itself: role.Disk
	Depth  int       // how many files are between it and the image that nothing names, at most
	// Backing and Data are what it names; nil for none.
	Backing, Data *File

	header chain.Header // as it was read, of a qcow2 image that names others
}

// ErrRewrite says that an image names other files in a way that cannot be written anew for a copy. The error says what helps.
var ErrRewrite = errors.New("cannot be copied with what it needs")

// Set is the files of some images, each file once.
type Set struct {
	Files []*File // what a file needs comes after it
	known map[guard.ID]*File
}

// Add finds the files of the image at path, which is absolute. Its format is declared, or "" and probed, as QEMU would. What
// cannot be copied so that the copies name each other is ErrRewrite.
func (s *Set) Add(ctx context.Context, open chain.Open, path, format string) (*File, error) {
	if s.known == nil {
		s.known = make(map[guard.ID]*File)
	}
	r := reader{Set: s, ctx: ctx, open: open, above: make(map[guard.ID]bool)}
	f, err := r.add(chain.Link{Path: path, Format: format, Role: role.Disk})
	if err == nil {
		s.Files = append(s.Files, r.found...)
		slices.SortStableFunc(s.Files, func(a, b *File) int { return a.Depth - b.Depth })
	}
	return f, wayOut(err, path)
}

type reader struct {
	*Set
	ctx   context.Context
	open  chain.Open
	above map[guard.ID]bool // the files on the way to the one that is looked at
	found []*File
}

func (r *reader) add(l chain.Link) (*File, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, context.Cause(r.ctx)
	}
	if len(r.found) > chain.MaxLinks {
		return nil, chain.ErrTooLong
	}
	f, err := r.open(l.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: l.Path, Err: err}
	}
	id := guard.StatID(&st)
	if r.above[id] {
		return nil, fmt.Errorf("%s: %w", l.Path, chain.ErrLoop)
	}
	known := r.known[id]
	if known != nil {
		known.deepen(l.Depth)
		return known, nil
	}
	r.above[id] = true
	defer delete(r.above, id)
	file := &File{Path: l.Path, Format: l.Format, Role: l.Role, Depth: l.Depth}
	if err := r.needs(f, file); err != nil {
		return nil, err
	}
	r.known[id] = file
	r.found = append(r.found, file)
	return file, nil
}

// deepen moves a file that is reached by a longer way, and what it needs.
func (f *File) deepen(depth int) {
	if f == nil || f.Depth >= depth {
		return
	}
	f.Depth = depth
	f.Backing.deepen(depth + 1)
	f.Data.deepen(depth + 1)
}

// needs finds what an open file names.
func (r *reader) needs(from io.ReaderAt, f *File) (err error) {
	if f.Format == "" {
		if f.Format, err = probe(from); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if parent, err := difference(from, f.Format); err != nil {
		return fmt.Errorf("%s (%s): %w", f.Path, f.Format, err)
	} else if parent {
		return f.refuse("it is the difference of another image, which imgcp does not look for")
	}
	links, elsewhere, err := chain.Direct(from, f.Path, f.Format)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", f.Path, err)
	case len(elsewhere) > 0:
		return f.refuse(fmt.Sprintf("it needs %.200q, which is no file of this host, or a part of one", elsewhere[0]))
	case f.Format != "qcow2" && len(links) == 0:
		return nil
	case f.Format != "qcow2":
		return f.refuse("the names of other files in an image of this format are not rewritten by imgcp")
	}
	h, err := chain.ReadHeader(from)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	f.header = *h
	if h.NeedsUnnamedData() {
		return f.refuse("its data is in another file, which it does not name")
	}
	for _, l := range links {
		l.Depth = f.Depth + 1
		needed, err := r.add(l)
		if err != nil {
			return fmt.Errorf("%s needs another file: %w", f.Path, err)
		}
		of := &f.Backing
		if l.Role == role.DataFile {
			of = &f.Data
		}
		if *of != nil {
			return f.refuse("its backing file is described as several (json:)")
		}
		*of = needed
		if l.Role == role.Backing && (h.Format != "" || strings.HasPrefix(h.Backing, "json:")) {
			f.header.Format = l.Format
		}
	}
	return nil
}

func (f *File) refuse(why string) error {
	return fmt.Errorf("%s (%s) %w: %s", f.Path, f.Format, ErrRewrite, why)
}

// wayOut says what helps against ErrRewrite for the image at path.
func wayOut(err error, path string) error {
	if !errors.Is(err, ErrRewrite) {
		return err
	}
	return fmt.Errorf("%w. To make one image of it: qemu-img convert -O qcow2 %s COPY; to copy it alone: --alone", err, guard.ShellWord(path))
}

// Elsewhere is what an image needs that is no file of this host, or not known to be one. path is its name, absolute.
func Elsewhere(r io.ReaderAt, path string) []string {
	format, err := probe(r)
	if err != nil {
		return nil
	}
	if parent, _ := difference(r, format); parent {
		return []string{"the image of which it is the difference (" + format + ")"}
	}
	_, elsewhere, _ := chain.Direct(r, path, format)
	return elsewhere
}

// Needs reports whether the file names others.
func (f *File) Needs() bool { return f.Backing != nil || f.Data != nil }

// Rewrite is the beginning that a copy of f in the directory dir, an absolute path, must have, where names says what the copies of
// the others are called there, or their absolute paths; nil if it names none. r is what is copied. An error is ErrRewrite if names do not fit, and another
// if r does not name what f does.
func (f *File) Rewrite(r io.ReaderAt, dir string, names map[*File]string) ([]byte, error) {
	if !f.Needs() {
		return nil, nil
	}
	h, err := chain.ReadHeader(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	if h.Backing != f.header.Backing || h.DataFile != f.header.DataFile {
		return nil, fmt.Errorf("the backing chain of %s changed while it was copied (it names %q and %q now): copy it again",
			f.Path, h.Backing, h.DataFile)
	}
	h.Format = f.header.Format
	if f.Backing != nil {
		h.Backing = relative(names[f.Backing])
	}
	if f.Data != nil {
		if h.DataFile = names[f.Data]; !filepath.IsAbs(h.DataFile) {
			h.DataFile = filepath.Join(dir, h.DataFile)
		}
	}
	b, err := h.Encode()
	if err != nil {
		return nil, wayOut(f.refuse(err.Error()), f.Path)
	}
	return b, nil
}

// relative is a name that QEMU takes for one in the image's own directory: what stands before a colon would be a protocol.
func relative(name string) string {
	if strings.Contains(name, ":") && !filepath.IsAbs(name) {
		return "./" + name
	}
	return name
}

// Names gives every file a name in one directory: its own, or the next free of its series where two have the same. taken are the
// names that some have been given already.
func (s *Set) Names(taken map[*File]string) map[*File]string {
	names, used := make(map[*File]string), make(map[string]bool)
	for f, n := range taken {
		names[f], used[n] = n, true
	}
	for _, f := range s.Files {
		if names[f] != "" {
			continue
		}
		base := filepath.Base(f.Path)
		name := base
		for i := 2; used[name]; i++ {
			ext := filepath.Ext(base)
			name = strings.TrimSuffix(base, ext) + "-" + strconv.Itoa(i) + ext
		}
		names[f], used[name] = name, true
	}
	return names
}

// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	imgcopy "imgward/copy"
	"imgward/copy/backing"
	"imgward/copy/checkpoint"
	"imgward/copy/dest"
	"imgward/copy/domain/archive"
)

// place says where each file goes: where it was, by the maps.
func (p *Plan) place() {
	taken := make(map[string]string)
	for _, f := range p.m.Files {
		if f.Source == "" || f.Target != "" && p.without(f.Target) && (f.Kind == archive.Disk || f.Kind == archive.CDROM || f.Kind == archive.Floppy) {
			continue
		}
		if f.Kind == archive.ManagedSave && p.as.on {
			p.note("the domain was saved, and its state is of its old name: started, it boots")
			continue
		}
		// What reads it later follows links, and waits for a FIFO.
		if f.State.Whole() {
			r, err := p.a.Open(f.Path)
			if err != nil {
				p.problem(err)
				continue
			}
			r.Close()
		}
		to := p.path(f.Source)
		if slices.Contains(strings.Split(f.Source, "/"), "..") {
			p.problem(fmt.Errorf("%s: its place %q %w", f.Path, f.Source, ErrOutside))
		}
		if !filepath.IsAbs(to) {
			if to = p.named(remote, f.Source); to == f.Source {
				p.problem(fmt.Errorf("%s was the network disk %s: --map %s=FILE says which file it becomes, --without=%s leaves it out",
					f.Target, f.Source, f.Source, f.Target))
			}
		}
		if f.Kind == archive.NVRAM || f.Kind == archive.TPM {
			to = p.as.path(to)
		}
		if other := taken[to]; other != "" {
			p.problem(fmt.Errorf("%s and %s would both become %s: map one of them elsewhere", other, f.Source, to))
		}
		taken[to] = f.Source
		p.Files = append(p.Files, Placed{File: f, To: to})
	}
	for i := range p.Files {
		p.placed[p.Files[i].File.Path] = &p.Files[i]
	}
}

// path maps a path: the longest directory counts.
func (p *Plan) path(name string) string {
	var best Map
	for _, m := range p.o.Maps {
		if m.Kind == "" && (name == m.Old || strings.HasPrefix(name, strings.TrimSuffix(m.Old, "/")+"/")) && len(m.Old) > len(best.Old) {
			best = m
		}
	}
	if best.Old == "" {
		return name
	}
	return filepath.Join(best.New, strings.TrimPrefix(name, best.Old))
}

// named maps a name of some kind.
func (p *Plan) named(kind, name string) string {
	for _, m := range p.o.Maps {
		if m.Kind == kind && m.Old == name {
			return m.New
		}
	}
	return name
}

// isImage says what may name others.
func isImage(f *archive.File) bool {
	switch f.Kind {
	case archive.Disk, archive.Backing, archive.DataFile, archive.CDROM, archive.Floppy:
		return true
	}
	return false
}

// chains reads the images' own headers, which is what QEMU will follow, and makes sure that they name what the manifest says and
// nothing else.
func (p *Plan) chains(ctx context.Context) error {
	var set backing.Set
	images := make(map[*backing.File]*Placed)
	for i := range p.Files {
		f := &p.Files[i]
		if !isImage(&f.File) {
			continue
		}
		format := f.File.Format
		if format == "" && f.File.Kind != archive.Backing {
			format = "raw"
		}
		b, err := set.Add(ctx, p.inside, p.a.Path(f.File.Path), format)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			p.problem(err)
			continue
		}
		images[b] = f
	}
	for b, f := range images {
		if !p.asListed(b, f) {
			p.problem(fmt.Errorf("%s does not name the files that the manifest lists for it: it %w", p.a.Path(f.File.Path), ErrOutside))
			continue
		}
		if b.Needs() {
			f.header = p.headerFor(b, f, images)
		}
	}
	return nil
}

// inside opens a file of the copy, and no other.
func (p *Plan) inside(name string) (*os.File, error) {
	rel, err := filepath.Rel(p.a.Dir, name)
	if err == nil && p.placed[filepath.ToSlash(rel)] == nil {
		err = ErrOutside
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, ErrOutside)
	}
	return p.a.Open(filepath.ToSlash(rel))
}

func (p *Plan) asListed(b *backing.File, f *Placed) bool {
	is := func(b *backing.File, listed string) bool {
		return b == nil && listed == "" || b != nil && listed != "" && filepath.Clean(b.Path) == p.a.Path(listed)
	}
	return is(b.Backing, f.File.Backing) && is(b.Data, f.File.Data)
}

// headerFor names the others where they go: in the same directory by their names, so that they can be moved together.
func (p *Plan) headerFor(b *backing.File, f *Placed, images map[*backing.File]*Placed) func(io.ReaderAt) ([]byte, error) {
	dir := filepath.Dir(f.To)
	names := make(map[*backing.File]string)
	for _, needed := range []*backing.File{b.Backing, b.Data} {
		if needed == nil {
			continue
		}
		names[needed] = images[needed].To
		if filepath.Dir(images[needed].To) == dir {
			names[needed] = filepath.Base(images[needed].To)
		}
	}
	return func(r io.ReaderAt) ([]byte, error) { return b.Rewrite(r, dir, names) }
}

// shared are files that several domains may use, since none writes to them.
func shared(f *archive.File) bool {
	return f.Kind == archive.Backing || f.Kind == archive.CDROM || f.Kind == archive.Floppy || f.Kind == archive.Boot
}

// free makes sure that a file's place is free, or has the very same file already.
func (p *Plan) free(ctx context.Context, f *Placed) error {
	switch from := p.a.Path(f.File.Path); {
	case !exists(f.To):
		if strings.HasPrefix(f.To, "/dev/") {
			p.problem(fmt.Errorf("%s is no file that can be made: --map %s=DIRECTORY", f.To, filepath.Dir(f.File.Source)))
		}
		return nil
	case checkpoint.Whole(from, f.To): // of a run that was interrupted
		f.There = true
		return nil
	case shared(&f.File) && f.header == nil:
		if _, err := imgcopy.Compare(ctx, from, f.To, p.o.Copy); err == nil {
			f.There = true
			return nil
		} else if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	elsewhere := filepath.Dir(f.File.Source) + "=DIRECTORY"
	if !filepath.IsAbs(f.File.Source) {
		elsewhere = f.File.Source + "=FILE"
	}
	p.problem(fmt.Errorf("%w; --map %s puts it elsewhere", &dest.ExistsError{Path: f.To}, elsewhere))
	return nil
}

// put brings a file to its place. What arrives is what was copied once: its digest is the manifest's.
func (p *Plan) put(ctx context.Context, f *Placed) error {
	// QEMU and swtpm, which run as users of their own, must reach what is in it, and need to list nothing. libvirt gives a TPM's
	// directory and its files to swtpm's user at the start (qemuTPMEmulatorCreateStorage), but leaves the one above as it is.
	if err := os.MkdirAll(filepath.Dir(f.To), 0o711); err != nil {
		return err
	}
	from, o := p.a.Path(f.File.Path), p.o.Copy
	o.Digest, o.Alone = true, true
	if f.header != nil {
		o.Header = f.header
		sum, _, err := imgcopy.Digest(ctx, from, p.o.Copy)
		if err == nil {
			err = sameDigest(sum.String(), &f.File)
		}
		if err != nil {
			return err
		}
	}
	r, err := imgcopy.Copy(ctx, from, f.To, o)
	if err != nil {
		return err
	}
	if f.header == nil {
		if err := sameDigest(r.Digest, &f.File); err != nil {
			return errors.Join(err, os.Remove(f.To)) // made just now, and known to nobody
		}
	}
	return checkpoint.NoteWhole(from, f.To)
}

func sameDigest(sum string, f *archive.File) error {
	if sum != f.BLAKE3 {
		return fmt.Errorf("%w: %s of the copy is not what was copied (BLAKE3 %.16s…, in the manifest %.16s…)", imgcopy.ErrVerify, f.Path, sum, f.BLAKE3)
	}
	return nil
}

func readMost(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = errors.New("too long")
	}
	return b, err
}

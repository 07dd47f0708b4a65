// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"imgward/copy/checkpoint"
	"imgward/copy/domain/archive"
)

// Shared knows what the domains of one DEST have, so that an image that several use is copied once and linked.
type Shared struct {
	mu   sync.Mutex
	have map[checkpoint.Identity]*entry
}

// entry is an image that has been copied, or is being copied.
type entry struct {
	done chan struct{} // closed at the end of the copy
	ok   bool
	path string // absolute
	file archive.File
}

// NewShared finds the images that the copies at dest have already. A copy that cannot be read has none.
func NewShared(dest string) *Shared {
	s := &Shared{have: make(map[checkpoint.Identity]*entry)}
	dirs, _ := archive.List(dest)
	for _, dir := range dirs {
		a, err := archive.Open(dir)
		if err != nil {
			continue
		}
		for _, f := range a.Manifest().Files {
			if f.State.Whole() && f.Identity != nil && mayShare(&f) {
				e := &entry{done: make(chan struct{}), ok: true, path: a.Path(f.Path), file: f}
				close(e.done)
				s.have[key(&f)] = e
			}
		}
		a.Close()
	}
	return s
}

// mayShare: what no domain writes to.
func mayShare(f *archive.File) bool {
	return f.Kind == archive.Backing || f.Kind == archive.CDROM || f.Kind == archive.Floppy
}

func key(f *archive.File) checkpoint.Identity {
	id := *f.Identity
	id.Path = "" // one image has many names
	return id
}

// once has copy make the file, if no other domain has it or is just copying it.
func (s *Shared) once(a *archive.Archive, f *archive.File, copy func() error) error {
	if s == nil || !mayShare(f) || f.Identity == nil || f.Identity.Rdev != 0 {
		return copy()
	}
	s.mu.Lock()
	e := s.have[key(f)]
	if e == nil {
		e = &entry{done: make(chan struct{})}
		s.have[key(f)] = e
		s.mu.Unlock()
		err := copy()
		e.ok, e.path, e.file = err == nil, a.Path(f.Path), *f
		if err != nil {
			s.mu.Lock()
			delete(s.have, key(f))
			s.mu.Unlock()
		}
		close(e.done)
		return err
	}
	s.mu.Unlock()
	<-e.done
	// The names in the image's header are part of what is shared.
	if e.ok && e.file.Backing == f.Backing && e.file.Data == f.Data && e.file.Format == f.Format {
		err := os.Link(e.path, a.Path(f.Path))
		if err == nil {
			f.Size, f.BLAKE3 = e.file.Size, e.file.BLAKE3
			return nil
		}
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EMLINK) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return copy()
}

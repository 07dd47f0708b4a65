// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"imgward/test/harness"
)

// scene is a directory of images inside the view, with all that the commands of the refusal matrix need.
type scene struct {
	h    *harness.Host
	dir  string
	src  string
	keep string // hard links to the images, out of reach: what is destroyed can be put back
}

func newScene(t *testing.T, h *harness.Host, name string) *scene {
	t.Helper()
	s := &scene{h: h, dir: filepath.Join(h.Images, name), keep: filepath.Join(h.Dir, "keep-"+name)}
	for _, dir := range []string{s.dir, s.keep} {
		if err := os.Mkdir(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	s.src = h.Raw(t, filepath.Join(name, "src"), MiB)
	s.pin(t, "src")
	t.Cleanup(func() { s.sweep(t) })
	return s
}

// image makes a raw image of 8 MiB.
func (s *scene) image(t *testing.T, name string) string {
	t.Helper()
	path := s.h.Raw(t, filepath.Join(filepath.Base(s.dir), name), 8*MiB)
	s.pin(t, name)
	return path
}

// overlay makes a qcow2 image over another one of the scene.
func (s *scene) overlay(t *testing.T, name, backing string) string {
	t.Helper()
	path := s.h.Overlay(t, filepath.Join(filepath.Base(s.dir), name), backing, "raw")
	s.pin(t, name)
	return path
}

// name is an image's name below the view.
func (s *scene) name(image string) string {
	return filepath.Join(filepath.Base(s.dir), filepath.Base(image))
}

// pin keeps the image's inode reachable.
func (s *scene) pin(t *testing.T, name string) {
	t.Helper()
	if err := os.Link(s.h.Beneath(t, filepath.Join(s.dir, name)), filepath.Join(s.keep, name)); err != nil {
		t.Fatal(err)
	}
}

// run runs a command on an image by some name of it. prefix, if any, is a command line that runs it elsewhere.
func (s *scene) run(t *testing.T, c command, image string, prefix ...string) harness.Result {
	t.Helper()
	return harness.Cmd{
		Args: append(prefix, "sh", "-c", "set -e; "+c.script),
		Env:  s.env(image),
	}.Run(t)
}

func (s *scene) env(image string) []string {
	src := s.src
	if filepath.Dir(image) == s.bind() { // link and rename do not work from one mount to another
		src = filepath.Join(s.bind(), filepath.Base(src))
	}
	return []string{"IMG=" + image, "DIR=" + s.dir, "SRC=" + src, "OUT=" + s.h.Out,
		"POOL=" + filepath.Base(s.dir), "VOL=" + filepath.Base(image), "DOM2=other"}
}

// backup is an image's contents, to be put back.
type backup struct {
	name     string
	contents []byte
}

func (s *scene) save(t *testing.T, image string) *backup {
	t.Helper()
	b := &backup{name: filepath.Base(image)}
	var err error
	if b.contents, err = os.ReadFile(filepath.Join(s.keep, b.name)); err != nil {
		t.Fatal(err)
	}
	return b
}

// putBack makes names and contents what they were: in the same inode, for a QEMU has it open.
func (s *scene) putBack(t *testing.T, b *backup, names []string) {
	t.Helper()
	keep := filepath.Join(s.keep, b.name)
	if err := writeSparse(keep, b.contents); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		s.relink(t, keep, filepath.Join(s.h.Images, name))
	}
	src := filepath.Base(s.src)
	s.relink(t, filepath.Join(s.keep, src), s.src)
	if err := os.Truncate(filepath.Join(s.keep, src), MiB); err != nil {
		t.Fatal(err)
	}
}

// relink gives a kept inode its name back.
func (s *scene) relink(t *testing.T, keep, name string) {
	t.Helper()
	path := s.h.Beneath(t, name)
	os.Remove(path)
	if err := os.Link(keep, path); err != nil {
		t.Fatal(err)
	}
}

// writeSparse writes contents over a file's, with holes where they are zero.
func writeSparse(path string, contents []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const chunk = 64 << 10
	zero := make([]byte, chunk)
	for at := 0; at < len(contents); at += chunk {
		part := contents[at:min(at+chunk, len(contents))]
		if string(part) == string(zero[:len(part)]) {
			continue
		}
		if _, err := f.WriteAt(part, int64(at)); err != nil {
			return err
		}
	}
	return f.Truncate(int64(len(contents)))
}

// sweep removes what commands have left beside the images and outside.
func (s *scene) sweep(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{s.h.Out + "/*", s.dir + "/new", s.dir + "/*.old", s.dir + "/sed*"} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range left {
			os.RemoveAll(path)
		}
	}
}

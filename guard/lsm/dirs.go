// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/policy"
)

// dir is a directory above an image in use: it keeps its name, or libvirt would not find the image again.
type dir struct {
	file   *file
	parent guard.ID // zero: there is none on this mount
	image  Image    // what is declared of it
	// enforced: an image below is more than watched, so it is as well.
	enforced bool
	uses     []guard.Use
}

// noteDir notes the directory that an image was found in. Only once is it looked for: an image in use does not move.
func (g *gathering) noteDir(f *file, id guard.ID, m *Image, uses []guard.Use) {
	if g.dirs[f.parent] == nil {
		if known := g.before[f.parent]; known != nil {
			g.noteOpen(known.File)
		} else {
			f.parent = g.findDir(f, id)
		}
	}
	d := g.dirs[f.parent]
	if d == nil {
		return
	}
	d.image.Holders = append(d.image.Holders, m.Holders...)
	d.image.Used = d.image.Used || m.Used
	d.enforced = d.enforced || !m.Audit
	d.uses = uses
}

// findDir notes the directory by an image's path; zero where that leads there no more, or in another mount namespace.
func (g *gathering) findDir(f *file, id guard.ID) guard.ID {
	path := f.behind
	if path == "" {
		path, _ = os.Readlink(procFD(f.File))
	}
	parent := g.openDir(filepath.Dir(path))
	if parent == nil {
		return guard.ID{}
	}
	var st unix.Stat_t
	if unix.Fstatat(int(parent.Fd()), filepath.Base(path), &st, unix.AT_SYMLINK_NOFOLLOW) != nil || guard.StatID(&st) != id {
		parent.Close()
		return guard.ID{}
	}
	return g.noteOpen(parent)
}

func (g *gathering) openDir(path string) *os.File {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	return f
}

// noteOpen notes a directory, and those above it up to the root of what is mounted, and returns its ID.
func (g *gathering) noteOpen(f *os.File) guard.ID {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		f.Close()
		return guard.ID{}
	}
	id := guard.StatID(&st)
	if g.dirs[id] != nil {
		f.Close()
		return id
	}
	own := &file{File: f}
	if known := g.before[id]; known != nil && known.File != f {
		f.Close()
		own = known
	}
	d := &dir{file: own, image: Image{ID: id, File: own.File, Deny: policy.Rename}}
	g.dirs[id], g.found[id] = d, own
	if up := g.openDir(procFD(own.File) + "/.."); up != nil {
		var above unix.Stat_t
		if unix.Fstat(int(up.Fd()), &above) == nil && above.Dev == st.Dev && above.Ino != st.Ino {
			d.parent = g.noteOpen(up)
		} else {
			up.Close()
		}
	}
	return id
}

func procFD(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// addDirs adds the directories, each with the holders of all that is below it.
func (g *gathering) addDirs() {
	for _, d := range g.dirs {
		if len(d.uses) == 0 {
			continue
		}
		for at := d; at != nil; at = g.dirs[at.parent] {
			m := g.byID[at.image.ID]
			if m == nil {
				m = &Image{ID: at.image.ID, File: at.file.File, Deny: policy.Rename, Audit: true}
				g.byID[m.ID], g.also[m.ID] = m, d.uses
			}
			m.Used = m.Used || d.image.Used
			m.Audit = m.Audit && !d.enforced
			if len(m.Holders) <= maxHolders {
				m.Holders = append(m.Holders, d.image.Holders...)
			}
		}
	}
}

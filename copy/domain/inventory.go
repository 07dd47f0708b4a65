// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/checkpoint"
	"imgward/copy/domain/archive"
	"imgward/copy/source"
	"imgward/guard"
	"imgward/guard/chain"
	"imgward/guard/role"
)

// inventory is the files of one domain that are to be copied, each below those that stand on it.
type inventory struct {
	files []archive.File
	known map[fileID]string // path in the copy, by what the source is
	names map[string]bool
	flat  map[fileID]bool // disks that become one image without others
}

type fileID struct{ dev, ino, rdev uint64 }

func newInventory() *inventory {
	return &inventory{known: make(map[fileID]string), names: make(map[string]bool), flat: make(map[fileID]bool)}
}

// disk adds a disk's image and everything in its backing chain. The chain is what the images' own headers say, which is what
// QEMU follows; format is what the domain declares. A chain that cannot be read to its end is an error: half of one is no copy.
func (v *inventory) disk(ctx context.Context, d *disk) error {
	if id, _, err := statID(d.path); err == nil && v.flat[id] {
		return nil
	}
	links := []chain.Link{{Path: d.path, Format: d.format()}}
	err := chain.Walk(ctx, guard.HostDirect{}.Open, d.path, d.format(), func(l chain.Link) { links = append(links, l) })
	if err != nil {
		return fmt.Errorf("%s: read the backing chain: %w", d.Target.Dev, err)
	}
	above := make([]int, 0, len(links)) // the index of the file at each depth
	for i, l := range links {
		kind := d.kind()
		switch {
		case l.Role == role.DataFile:
			kind = archive.DataFile
		case i > 0 || d.below:
			kind = archive.Backing
		}
		at, name, err := v.add("disks", archive.File{Kind: kind, Target: d.Target.Dev, Format: l.Format, Source: l.Path})
		if err != nil {
			return fmt.Errorf("%s: %w", d.Target.Dev, err)
		}
		if i > 0 {
			parent := &v.files[above[l.Depth-1]]
			if kind == archive.DataFile {
				parent.Data = name
			} else {
				parent.Backing = name
			}
		}
		above = append(above[:l.Depth], at)
	}
	return nil
}

// pulled adds a disk that is read as the guest sees it, whatever it is made of.
func (v *inventory) pulled(d *disk) error {
	id, st, err := statID(d.path)
	if err != nil {
		return err
	}
	size, err := sizeOf(d.path, &st)
	if err != nil {
		return err
	}
	v.flat[id] = true
	v.addRaw(d, d.path, size)
	return nil
}

func (v *inventory) addRaw(d *disk, source string, size int64) {
	v.files = append(v.files, archive.File{Path: v.free("disks", d.Target.Dev+".raw"), Kind: archive.Disk, Target: d.Target.Dev,
		Format: "raw", Source: source, Size: size, State: archive.Pending})
}

// add adds a file to a directory of the copy, under its own name if that is free. A file that is there already, by its inode,
// is not added again.
func (v *inventory) add(dir string, f archive.File) (at int, name string, err error) {
	id, st, err := statID(f.Source)
	if err != nil {
		return 0, "", err
	}
	if name := v.known[id]; name != "" {
		for i := range v.files {
			if v.files[i].Path == name {
				return i, name, nil
			}
		}
	}
	f.Path = v.free(dir, filepath.Base(f.Source))
	f.State = archive.Pending
	if f.Size, err = sizeOf(f.Source, &st); err != nil {
		return 0, "", err
	}
	identity := checkpoint.Identify(f.Source, &st, f.Size)
	f.Identity = &identity
	v.known[id] = f.Path
	v.files = append(v.files, f)
	return len(v.files) - 1, f.Path, nil
}

// statID is what a path leads to: an inode, or a block device by its number.
func statID(name string) (id fileID, st unix.Stat_t, err error) {
	if err := unix.Stat(name, &st); err != nil {
		return id, st, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return fileID{rdev: st.Rdev}, st, nil
	}
	return fileID{dev: st.Dev, ino: st.Ino}, st, nil
}

// sizeOf is the size of a file or block device.
func sizeOf(name string, st *unix.Stat_t) (int64, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return st.Size, nil
	}
	src, err := source.Open(name)
	if err != nil {
		return 0, err
	}
	defer src.Close()
	return src.Size, nil
}

// free is a name that nothing in the copy has yet.
func (v *inventory) free(dir, base string) string {
	base = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\\' {
			return '_'
		}
		return r
	}, base)
	name := path.Join(dir, base)
	for n := 2; v.names[name] || !archive.ValidPath(name); n++ {
		name = path.Join(dir, fmt.Sprintf("%d-%s", n, base))
	}
	v.names[name] = true
	return name
}

// others adds what is no disk: the firmware's variables, TPM state, kernel and initrd.
func (v *inventory) others(d *description) error {
	for _, f := range []struct {
		dir, path string
		kind      archive.Kind
	}{
		{"nvram", d.NVRAM.path(), archive.NVRAM},
		{"boot", d.Kernel, archive.Boot}, {"boot", d.Initrd, archive.Boot}, {"boot", d.DTB, archive.Boot},
	} {
		if f.path == "" {
			continue
		}
		_, _, err := v.add(f.dir, archive.File{Kind: f.kind, Format: "raw", Source: f.path})
		if errors.Is(err, fs.ErrNotExist) && f.kind == archive.NVRAM {
			continue // it has never been started
		}
		if err != nil {
			return err
		}
	}
	return v.tpm(d)
}

// tpmDir is where libvirt's qemu driver has the state of emulated TPMs (virTPMEmulator… in src/qemu/qemu_tpm.c).
const tpmDir = "/var/lib/libvirt/swtpm"

// tpm adds the files of swtpm's state.
func (v *inventory) tpm(d *description) error {
	for _, t := range d.TPM {
		if t.Type != "emulator" {
			continue
		}
		dir := t.Source.Path
		if dir == "" {
			dir = filepath.Join(tpmDir, d.UUID)
		}
		err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && name == dir {
				return nil // it has never been started
			}
			if err != nil || !e.Type().IsRegular() || strings.HasSuffix(name, ".lock") {
				return err
			}
			rel, err := filepath.Rel(dir, filepath.Dir(name))
			if err != nil {
				return err
			}
			_, _, err = v.add(path.Join("tpm", rel), archive.File{Kind: archive.TPM, Source: name})
			return err
		})
		if err != nil {
			return fmt.Errorf("TPM state: %w", err)
		}
	}
	return nil
}

// changed says whether the source of a file is another one, or was written to, since it was copied.
func changed(f *archive.File) bool {
	var st unix.Stat_t
	if f.Identity == nil || unix.Stat(f.Source, &st) != nil {
		return true
	}
	size, err := sizeOf(f.Source, &st)
	if err != nil {
		return true
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return true // it has no time of the last write
	}
	return f.Identity.Same(checkpoint.Identify(f.Source, &st, size)) != nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

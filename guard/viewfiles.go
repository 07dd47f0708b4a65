// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"hash/maphash"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Some evidence lies in files of the view itself, wherever they are: the states of saved domains, the locks of VMs on other
// hosts. The whole view is searched for it now and then.

// viewFile is a regular file of the view.
type viewFile struct {
	dirfd   int
	name    string
	path    string // on the host
	changed bool   // since the last search
	remote  bool   // other hosts may have it open
}

// fileVersion tells whether a file is as it was.
type fileVersion struct {
	dev, ino uint64
	size     int64
	mtime    unix.Timespec
}

func versionOf(st *unix.Stat_t) fileVersion {
	return fileVersion{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim}
}

// maxSearched bounds a search, in files.
const maxSearched = 200_000

// search is one search.
type search struct {
	ctx    context.Context
	found  func(*viewFile)
	remote func(fd int) bool
	seed   maphash.Seed
	// before and now are what the last search and this one have seen: a number for each file, its path and version together,
	// because a view may have very many. before is sorted.
	before, now []uint64
}

// keepSearching searches the view until ctx ends.
func (g *Guard) keepSearching(ctx context.Context) {
	if g.config.ViewRoot == "" {
		return
	}
	seed := maphash.MakeSeed()
	var before []uint64
	for {
		began := time.Now()
		locked := &lockSearch{g: g, ctx: ctx}
		s := search{ctx: ctx, seed: seed, before: before, now: make([]uint64, 0, len(before)+1), remote: g.remote, found: func(f *viewFile) {
			g.states.found(ctx, f)
			locked.found(f)
		}}
		if fd, err := g.config.Host.OpenDir(g.config.ViewRoot); err == nil {
			s.dir(fd, g.config.ViewRoot)
			slices.Sort(s.now)
			before = s.now
			g.locked.Store(locked)
			g.wake()
		}
		if !rest(ctx, max(rereadEvery, share*time.Since(began))) {
			return
		}
	}
}

// dir searches a directory and closes it. Symlink-safe: each step is one name, O_NOFOLLOW.
func (s *search) dir(fd int, path string) {
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	remote := s.remote(fd)
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if s.ctx.Err() != nil || len(s.now) >= maxSearched {
			return
		}
		var st unix.Stat_t
		if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		below := filepath.Join(path, name)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			if sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
				s.dir(sub, below)
			}
		case unix.S_IFREG:
			s.found(&viewFile{dirfd: fd, name: name, path: below, changed: s.note(below, versionOf(&st)), remote: remote})
		}
	}
}

// note takes in a file, and says whether it was not there before, or not like that.
func (s *search) note(path string, v fileVersion) (changed bool) {
	n := maphash.Comparable(s.seed, struct {
		path string
		fileVersion
	}{path, v})
	s.now = append(s.now, n)
	_, seen := slices.BinarySearch(s.before, n)
	return !seen
}

// Magic numbers of file systems that several hosts have mounted, or the server's own processes use (statfs(2)).
const (
	gfs2Magic = 0x01161970
	cephMagic = 0x00c36400
	gpfsMagic = 0x47504653
	lustre    = 0x0bd00bd0
	beegfs    = 0x19830326
)

// isRemote says whether a file's locks may be other hosts'. FUSE is there for GlusterFS and others like it.
func isRemote(fd int) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return false
	}
	switch uint32(fs.Type) {
	case unix.NFS_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC,
		unix.OCFS2_SUPER_MAGIC, unix.V9FS_MAGIC, unix.FUSE_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.CODA_SUPER_MAGIC,
		gfs2Magic, gpfsMagic, lustre, beegfs:
		return true
	}
	return false
}

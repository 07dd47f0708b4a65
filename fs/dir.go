// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"bytes"
	"encoding/binary"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/guard"
)

// dirStream reads one open directory. The kernel's offsets are the backing file system's own cookies, so a successor
// goes on in mid-listing with nothing to remember.
type dirStream struct {
	mu   sync.Mutex
	buf  []byte // what getdents64 gave
	rest []byte // of it, what has not been answered yet
	at   uint64 // the cookie before rest
	dev  uint64
}

// dirBuffer is how much getdents64 is asked for at a time: some 300 names of 100 bytes.
const dirBuffer = 32 << 10

// OpenDir opens a directory.
func (fs *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if h := fs.handles.answer(in.Unique); h != nil && h.dir != nil && h.node.id == in.NodeId {
		out.Fh = h.fh
		return fuse.OK
	}
	if no := fs.roomForHandle(); no != 0 {
		return fuse.Status(no)
	}
	n, path, release, no := fs.nodes.byID(in.NodeId)
	if no != 0 {
		return fuse.Status(no)
	}
	defer release()
	fd, err := openDir(path)
	if err != nil {
		return fuse.ToStatus(err)
	}
	h := &handle{
		node:   n,
		fd:     fd,
		flags:  unix.O_RDONLY | unix.O_DIRECTORY,
		mode:   state.ModeDir,
		unique: in.Unique &^ resendBit,
		opener: guard.Process{PID: int(in.Pid), UID: in.Uid},
		since:  time.Now(),
		dir:    &dirStream{dev: n.key.Dev},
	}
	if no := fs.handles.add(h); no != 0 {
		unix.Close(fd)
		return fuse.Status(no)
	}
	out.Fh = h.fh
	return fuse.OK
}

// ReleaseDir closes a directory.
func (fs *FS) ReleaseDir(in *fuse.ReleaseIn) {
	if h, no := fs.handles.peek(in.Fh); no == 0 {
		fs.handles.remove(h)
		h.close(fs.nodes.closeFd)
	}
}

// FsyncDir flushes a directory to its medium.
func (fs *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return fuse.Status(no)
	}
	return fuse.ToStatus(sync1(h.fd, in.FsyncFlags))
}

// ReadDir lists names.
func (fs *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.list(in, func(d *dirStream, e *dirent) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: string(e.name), Ino: fs.direntIno(d, e), Mode: e.mode, Off: e.next})
	})
}

// ReadDirPlus lists names with what LOOKUP would answer, so that `ls -l` asks no more.
func (fs *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return fuse.Status(no)
	}
	return fs.list(in, func(d *dirStream, e *dirent) bool {
		entry := out.AddDirLookupEntry(fuse.DirEntry{Name: string(e.name), Ino: fs.direntIno(d, e), Mode: e.mode, Off: e.next})
		if entry == nil {
			return false
		}
		if !isDot(e.name) {
			fs.lookupEntry(h, d, e, entry)
		}
		return true
	})
}

// lookupEntry fills in what LOOKUP would answer. A node id of 0, as for a file that has just gone, means that the kernel
// is told nothing.
func (fs *FS) lookupEntry(h *handle, d *dirStream, e *dirent, out *fuse.EntryOut) {
	var st syscall.Stat_t
	// A regular file that is known is found by the number in its entry. A directory's entry may be a mount point, and
	// its number that of what is hidden below.
	if e.mode == syscall.S_IFREG {
		if n, fd, done := fs.nodes.known(guard.ID{Dev: d.dev, Ino: e.ino}); n != nil {
			err := fstat(fd, &st)
			done()
			if err == nil {
				fs.fillEntry(n, &st, out)
				return
			}
			fs.nodes.forget(n.id, 1)
		}
	}
	name := string(e.name)
	fd, err := openPath(h.fd, name)
	if err != nil {
		return
	}
	if no := fs.enter(fd, h.node, name, out); no != 0 {
		*out = fuse.EntryOut{}
	}
}

func (fs *FS) direntIno(d *dirStream, e *dirent) uint64 {
	return fs.ino(&syscall.Stat_t{Dev: d.dev, Ino: e.ino})
}

// list feeds entries to add, from the request's offset on, until it answers that there is no more room.
func (fs *FS) list(in *fuse.ReadIn, add func(*dirStream, *dirent) bool) fuse.Status {
	h, no := fs.handles.get(in.Fh)
	if no != 0 {
		return fuse.Status(no)
	}
	d := h.dir
	if d == nil {
		return fuse.Status(syscall.ENOTDIR)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.seek(h.fd, in.Offset); err != nil {
		return fuse.ToStatus(err)
	}
	for {
		if len(d.rest) == 0 {
			if err := d.fill(h.fd); err != nil || len(d.rest) == 0 {
				return fuse.ToStatus(err)
			}
		}
		e, size := parseDirent(d.rest)
		if !add(d, &e) {
			return fuse.OK
		}
		d.rest, d.at = d.rest[size:], e.next
	}
}

// seek brings the stream to an offset; from 0 the directory is read anew (rewinddir).
func (d *dirStream) seek(fd int, off uint64) error {
	if off == d.at && off != 0 {
		return nil
	}
	d.rest, d.at = nil, off
	_, err := unix.Seek(fd, int64(off), unix.SEEK_SET)
	return err
}

func (d *dirStream) fill(fd int) error {
	if d.buf == nil {
		d.buf = make([]byte, dirBuffer)
	}
	n, err := unix.Getdents(fd, d.buf)
	d.rest = d.buf[:max(n, 0)]
	if err == unix.ENOENT {
		return nil // the directory has been removed: it is empty
	}
	return err
}

// dirent is one entry of struct linux_dirent64.
type dirent struct {
	ino  uint64
	next uint64 // cookie of the entry after this one
	mode uint32 // file type bits
	name []byte
}

func parseDirent(b []byte) (e dirent, size int) {
	size = int(binary.NativeEndian.Uint16(b[16:]))
	e.ino = binary.NativeEndian.Uint64(b)
	e.next = binary.NativeEndian.Uint64(b[8:])
	e.mode = uint32(b[18]) << 12
	e.name = b[19:size]
	if i := bytes.IndexByte(e.name, 0); i >= 0 {
		e.name = e.name[:i]
	}
	return e, size
}

func isDot(name []byte) bool {
	return string(name) == "." || string(name) == ".."
}

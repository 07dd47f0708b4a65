// SPDX-License-Identifier: Apache-2.0

package move

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/sys"
)

// Handle reads and writes one file at offsets, past the page cache wherever that is wanted and the range is aligned.
// All methods may be called by many goroutines at once.
type Handle struct {
	File      *os.File   // through the page cache
	direct    *os.File   // nil: not wanted or not possible
	align     int64      // what direct I/O needs of offsets, lengths and memory
	Medium    bool       // never read from the page cache
	writeback *writeback // of what is written through the page cache; nil: that is the kernel's business

	// buffered lets one write at a time into the page cache: the inode's lock would let no more through, and waiting for
	// it in the kernel spins (measured: 8 writers took 2 to 5 times the CPU time of one).
	buffered sync.Mutex

	// submits says that direct writes go through submitters: FUSE would let one at a time through otherwise.
	submits    bool
	submitFrom atomic.Int64 // bytes to be written without them, for they cost some milliseconds in the end
	mu         sync.Mutex
	submitters []*sys.AIO // not in use now

	noCachestat atomic.Bool // before Linux 6.5
	noDirect    atomic.Bool // the file took O_DIRECT at open and refused it later
}

// SubmitAfter is what a copy writes before the cost of submitters is worth it.
const SubmitAfter = 32 << 20

// NewHandle wants direct I/O if direct is set; where the file cannot, it goes through the page cache.
func NewHandle(f *os.File, flags int, direct bool) *Handle {
	h := &Handle{File: f, align: 4096}
	if !direct || !Seekable(f) { // opening a pipe again would wait for its other end
		return h
	}
	align := sys.DirectAlign(f)
	if align == 0 || align > Chunk {
		return h
	}
	if d, err := sys.Reopen(f, flags|unix.O_DIRECT); err == nil {
		h.direct, h.align = d, int64(max(align, 512))
		h.submits = OnFUSE(f)
		h.submitFrom.Store(SubmitAfter)
	}
	return h
}

// Seekable distinguishes files and block devices from pipes and terminals.
func Seekable(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && (st.Mode().IsRegular() || st.Mode()&os.ModeType == os.ModeDevice)
}

// Close gives up the second descriptor; f belongs to the caller.
func (h *Handle) Close() {
	if h.direct != nil {
		h.direct.Close()
	}
	for _, a := range h.submitters {
		go a.Close() // each takes an RCU grace period, 10 to 30 ms; what follows, a flush above all, need not wait for that
	}
	h.submitters = nil
}

// canDirect looks at the offset and at the memory.
func (h *Handle) canDirect(p []byte, off int64) bool {
	return h.direct != nil && off%h.align == 0 && uintptr(unsafe.Pointer(&p[0]))%uintptr(h.align) == 0 && !h.noDirect.Load()
}

// ReadAt fills p, which must have capacity for p rounded up to the alignment. It takes from the page cache what is
// there and reads the rest past it, so that a cached image copies at the speed of memory and an uncached one does not
// push everybody else's pages out. A file that ends early is io.ErrUnexpectedEOF.
func (h *Handle) ReadAt(p []byte, off int64) (done int, err error) {
	past := h.pastCache(off, int64(len(p)))
	for done < len(p) {
		n, err := h.readOnce(p, done, off+int64(done), past)
		done += n
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// pastCache decides about one request. Asking beforehand is the only way: a read that may not wait (RWF_NOWAIT) starts
// readahead, so that everything would be read twice (seen with Linux 6.18: half the speed).
func (h *Handle) pastCache(off, n int64) bool {
	if h.direct == nil || h.noDirect.Load() {
		return false
	}
	if h.Medium || h.noCachestat.Load() {
		return true
	}
	cached, ok := sys.Cached(h.File, off, n)
	if !ok {
		h.noCachestat.Store(true)
	}
	return cached < n/2
}

func (h *Handle) readOnce(p []byte, done int, off int64, past bool) (int, error) {
	if past && h.canDirect(p[done:], off) {
		whole := int((int64(len(p)-done) + h.align - 1) / h.align * h.align) // a file may end in mid-block; its read may not
		n, err := pread(h.direct, p[done:done+whole:cap(p)], off)
		if !errors.Is(err, unix.EINVAL) {
			return min(n, len(p)-done), err
		}
		h.noDirect.Store(true)
	}
	return pread(h.File, p[done:], off)
}

// writeAt writes all of p.
func (h *Handle) writeAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := h.writeOnce(p[done:], off+int64(done))
		done += n
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return done, OutOfSpace(err)
		}
	}
	return done, nil
}

// minDirect is the shortest run worth its own trip to the device; shorter ones are collected by the page cache.
const minDirect = 64 << 10

func (h *Handle) writeOnce(p []byte, off int64) (int, error) {
	if whole := int64(len(p)) / h.align * h.align; whole >= minDirect && h.canDirect(p, off) {
		n, err := h.writeDirect(p[:whole], off)
		if !errors.Is(err, unix.EINVAL) {
			return n, err
		}
		h.noDirect.Store(true)
	}
	n, err := h.writeBuffered(p, off)
	if err != nil {
		return n, err
	}
	return n, h.writeback.wrote(off, int64(n))
}

func (h *Handle) writeDirect(p []byte, off int64) (int, error) {
	a := h.submitter(int64(len(p)))
	if a == nil {
		return pwrite(h.direct, p, off)
	}
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.submitters = append(h.submitters, a)
	}()
	return a.Pwrite(h.direct, p, off)
}

// submitter is for a write of n bytes; nil where plain writes do as well, or where the host has no more to give.
func (h *Handle) submitter(n int64) *sys.AIO {
	if !h.submits || h.submitFrom.Add(-n) > 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if last := len(h.submitters) - 1; last >= 0 {
		a := h.submitters[last]
		h.submitters = h.submitters[:last]
		return a
	}
	a, err := sys.NewAIO()
	if err != nil {
		return nil
	}
	return a
}

func (h *Handle) writeBuffered(p []byte, off int64) (int, error) {
	h.buffered.Lock()
	defer h.buffered.Unlock()
	return pwrite(h.File, p, off)
}

// pread and pwrite are one system call each: what a short one means is the caller's to decide.
func pread(f *os.File, p []byte, off int64) (int, error) { return once("read", unix.Pread, f, p, off) }

func pwrite(f *os.File, p []byte, off int64) (int, error) {
	return once("write", unix.Pwrite, f, p, off)
}

func once(op string, call func(fd int, p []byte, off int64) (int, error), f *os.File, p []byte, off int64) (int, error) {
	for {
		n, err := call(int(f.Fd()), p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, &os.PathError{Op: op, Path: f.Name(), Err: err}
		}
		return n, nil
	}
}

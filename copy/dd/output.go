// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	imgcopy "imgward/copy"
	"imgward/copy/dest"
	"imgward/copy/internal/sys"
	"imgward/copy/move"
	"imgward/copy/source"
)

// output is where dd writes.
type output struct {
	t       dest.Target // a file or block device; nil for what cannot be guarded: a pipe, a terminal, /dev/null
	plain   *os.File    // when t is nil
	isNew   bool
	blocks  bool   // a block device
	release func() // of a standard output that is a file or device; nil otherwise
}

func (out *output) file() *os.File {
	if out.t == nil {
		return out.plain
	}
	return out.t.File()
}

func (out *output) regular() bool { return out.t != nil && !out.blocks }

// openDDOutput looks at what of= names and changes nothing.
func openDDOutput(ctx context.Context, op Operands, src *source.Source, o *imgcopy.Options) (*output, error) {
	if op.Out == "" {
		return ddStdout(ctx, op, o)
	}
	if op.OFlag&Directory != 0 {
		return nil, &os.PathError{Op: "oflag=directory: open for writing", Path: op.Out, Err: unix.EISDIR}
	}
	path, err := source.Resolve(op.Out)
	if err != nil {
		return nil, err
	}
	if op.OFlag&NoFollow != 0 {
		if st, err := os.Lstat(op.Out); err == nil && st.Mode()&os.ModeSymlink != 0 {
			return nil, &os.PathError{Op: "open", Path: op.Out, Err: unix.ELOOP}
		}
	}
	var st unix.Stat_t
	err = unix.Stat(path, &st)
	if errors.Is(err, fs.ErrNotExist) {
		if op.Conv&NoCreat != 0 {
			return nil, &os.PathError{Op: "open", Path: op.Out, Err: err}
		}
		t, err := dest.NewFile(path, 0o666, nil, &o.Options) // and the umask
		return &output{t: t, isNew: true}, err
	}
	if err != nil {
		return nil, &os.PathError{Op: "stat", Path: op.Out, Err: err}
	}
	if op.Conv&Excl != 0 {
		return nil, dest.Exists(ctx, path, "", &o.Options)
	}
	return openDDExisting(ctx, op, path, &st, src, o)
}

func openDDExisting(ctx context.Context, op Operands, path string, st *unix.Stat_t, src *source.Source, o *imgcopy.Options) (*output, error) {
	kind := st.Mode & unix.S_IFMT
	if !dest.SameInode(st, &src.Stat) { // within one file dd may move bytes about, but it must be known to be one
		if err := dest.Overlap(src, op.Out, st); err != nil {
			return nil, err
		}
	}
	switch kind {
	case unix.S_IFREG:
		cut := truncation(op)
		if cut >= 0 && st.Size > cut && dest.SameInode(st, &src.Stat) {
			return nil, fmt.Errorf("%s and %s are the same image, which would be cut off before it is read; conv=notrunc copies "+
				"within it", src.Name, op.Out)
		}
		if cut >= 0 && st.Size > cut && o.Overwrite == dest.Refuse {
			return nil, dest.Exists(ctx, path, "", &o.Options)
		}
		t, err := dest.OpenInPlace(ctx, path, &o.Options)
		return &output{t: t}, err
	case unix.S_IFBLK:
		t, err := dest.OpenDevice(ctx, path, 0, &o.Options)
		return &output{t: t, blocks: true}, err
	case unix.S_IFDIR:
		return nil, fmt.Errorf("%s is a directory", op.Out)
	}
	f, err := sys.Wait(ctx, func() (*os.File, error) { return os.OpenFile(path, os.O_WRONLY|openFlags(op.OFlag), 0) })
	return &output{plain: f}, err
}

// ddStdout is what the shell opened.
func ddStdout(ctx context.Context, op Operands, o *imgcopy.Options) (*output, error) {
	release, err := dest.Stdout(ctx, &o.Options)
	if err != nil {
		return nil, err
	}
	return &output{plain: os.Stdout, release: release}, setFlags(os.Stdout, op.OFlag)
}

// truncation is the size that dd cuts an existing file to before it writes; -1 for not at all. GNU dd opens with O_TRUNC
// unless whole records are to be sought over, so a seek of bytes within the first record loses them.
func truncation(op Operands) int64 {
	switch {
	case op.Conv&NoTrunc != 0:
		return -1
	case op.Seek.Records == 0:
		return 0
	}
	return op.Seek.Total(op.OBS)
}

// prepare creates or truncates.
func (out *output) prepare(op Operands) error {
	cut := truncation(op)
	switch {
	case out.isNew:
		return out.t.Prepare(max(cut, 0), 0)
	case out.regular() && cut >= 0:
		return move.OutOfSpace(out.file().Truncate(cut))
	}
	return nil
}

func (out *output) commit(op Operands) error {
	sync := op.Conv&(Fsync|Fdatasync) != 0
	if out.t != nil {
		return out.t.Commit(sync)
	}
	if !sync {
		return nil
	}
	return move.OutOfSpace(out.plain.Sync())
}

func (out *output) end() {
	if out.t != nil {
		out.t.Abandon(false)
	} else if out.plain != os.Stdout {
		out.plain.Close()
	}
	if out.release != nil {
		out.release()
	}
}

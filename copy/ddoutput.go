package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"imgward/copy/dd"
)

// ddOutput is where dd writes.
type ddOutput struct {
	t      target   // a file or block device; nil for what cannot be guarded: a pipe, a terminal, /dev/null
	plain  *os.File // when t is nil
	isNew  bool
	blocks bool // a block device
}

func (out *ddOutput) file() *os.File {
	if out.t == nil {
		return out.plain
	}
	return out.t.file()
}

func (out *ddOutput) regular() bool { return out.t != nil && !out.blocks }

// openDDOutput looks at what of= names and changes nothing.
func openDDOutput(ctx context.Context, op dd.Operands, src *source, o *Options) (*ddOutput, error) {
	if op.Out == "" {
		return ddStdout(ctx, o)
	}
	path, err := resolve(op.Out)
	if err != nil {
		return nil, err
	}
	if op.OFlag&dd.NoFollow != 0 {
		if st, err := os.Lstat(op.Out); err == nil && st.Mode()&os.ModeSymlink != 0 {
			return nil, &os.PathError{Op: "open", Path: op.Out, Err: unix.ELOOP}
		}
	}
	var st unix.Stat_t
	err = unix.Stat(path, &st)
	if errors.Is(err, fs.ErrNotExist) {
		if op.Conv&dd.NoCreat != 0 {
			return nil, &os.PathError{Op: "open", Path: op.Out, Err: err}
		}
		t, err := newFresh(path, nil, src, o)
		if err != nil {
			return nil, err
		}
		t.(*fresh).perm = 0o666 // and the umask
		return &ddOutput{t: t, isNew: true}, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "stat", Path: op.Out, Err: err}
	}
	if op.Conv&dd.Excl != 0 {
		return nil, &ExistsError{Path: path, Next: NextFree(path)}
	}
	return openDDExisting(ctx, op, path, &st, src, o)
}

func openDDExisting(ctx context.Context, op dd.Operands, path string, st *unix.Stat_t, src *source, o *Options) (*ddOutput, error) {
	kind := st.Mode & unix.S_IFMT
	if !sameInode(st, &src.stat) { // within one file dd may move bytes about, but it must be known to be one
		if err := overlap(src, op.Out, st); err != nil {
			return nil, err
		}
	}
	switch kind {
	case unix.S_IFREG:
		cut := truncation(op)
		if cut >= 0 && st.Size > cut && sameInode(st, &src.stat) {
			return nil, fmt.Errorf("%s and %s are the same image, which would be cut off before it is read; conv=notrunc copies "+
				"within it", src.name, op.Out)
		}
		if cut >= 0 && st.Size > cut && o.Overwrite == Refuse {
			return nil, existsError(ctx, path, o)
		}
		e, err := seize(ctx, path, 0, o)
		if err != nil {
			return nil, err
		}
		return &ddOutput{t: &inplace{existing: e, opts: o}}, nil
	case unix.S_IFBLK:
		t, err := openDevice(ctx, path, &source{kind: stream}, o)
		return &ddOutput{t: t, blocks: true}, err
	case unix.S_IFDIR:
		return nil, fmt.Errorf("%s is a directory", op.Out)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|openFlags(op.OFlag), 0)
	return &ddOutput{plain: f}, err
}

// ddStdout is what the shell opened, and perhaps truncated before we were asked. What is still there of an image in use
// stays.
func ddStdout(ctx context.Context, o *Options) (*ddOutput, error) {
	if isRegular(os.Stdout) && o.Users != nil {
		uses, err := o.Users.InUse(ctx, os.Stdout)
		if err != nil {
			return nil, err
		}
		if len(uses) > 0 {
			return nil, &InUseError{Path: "standard output", Uses: uses, Hint: "nothing was written to it"}
		}
	}
	return &ddOutput{plain: os.Stdout}, nil
}

// truncation is the size that dd cuts an existing file to before it writes; -1 for not at all. GNU dd opens with O_TRUNC
// unless whole records are to be sought over, so a seek of bytes within the first record loses them.
func truncation(op dd.Operands) int64 {
	switch {
	case op.Conv&dd.NoTrunc != 0:
		return -1
	case op.Seek.Records == 0:
		return 0
	}
	return op.Seek.Total(op.OBS)
}

// prepare creates or truncates.
func (out *ddOutput) prepare(op dd.Operands) error {
	cut := truncation(op)
	switch {
	case out.isNew:
		nothing := func() (int64, error) { return 0, nil }
		return out.t.prepare(max(cut, 0), nothing, func(*os.File) bool { return false })
	case out.regular() && cut >= 0:
		return outOfSpace(out.file().Truncate(cut))
	}
	return nil
}

func (out *ddOutput) commit(op dd.Operands) error {
	sync := op.Conv&(dd.Fsync|dd.Fdatasync) != 0
	if out.t != nil {
		return out.t.commit(sync)
	}
	if !sync {
		return nil
	}
	return outOfSpace(out.plain.Sync())
}

func (out *ddOutput) end() {
	if out.t != nil {
		out.t.abandon(false)
	} else if out.plain != os.Stdout {
		out.plain.Close()
	}
}

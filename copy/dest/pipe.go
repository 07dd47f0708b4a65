// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"imgward/copy/internal/sys"
	"imgward/copy/source"
)

// Pipe takes an image in order: standard output, a FIFO, /dev/null. Holes go through it as zeroes, and nothing of it can be
// taken back.
type Pipe struct {
	w       *os.File
	release func() // of what was looked at behind standard output
}

// IsPipe reports whether name would be a Pipe.
func IsPipe(name string) bool {
	st, err := os.Stat(name)
	return name == "-" || err == nil && st.Mode()&(os.ModeNamedPipe|os.ModeCharDevice) != 0
}

// Name is what it was opened as.
func (t *Pipe) Name() string { return t.w.Name() }

// Writer waits for whoever reads until ctx ends.
func (t *Pipe) Writer(ctx context.Context) io.Writer { return sys.NewWriter(ctx, t.w) }

// openStdout looks behind standard output first: the shell may have connected it to a file or device.
func openStdout(ctx context.Context, src *source.Source, o *Options) (*Pipe, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(os.Stdout.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: "standard output", Err: err}
	}
	if err := Overlap(src, "standard output", &st); err != nil {
		return nil, err
	}
	t, err := openPipe(os.Stdout)
	if err != nil {
		return nil, err
	}
	if t.release, err = Stdout(ctx, o); err != nil {
		return nil, err
	}
	return t, nil
}

// openPipe refuses a terminal: an image would garble it and, with the right bytes, type on it.
func openPipe(w *os.File) (*Pipe, error) {
	if term.IsTerminal(int(w.Fd())) {
		return nil, errors.New("standard output is a terminal; redirect it to a file or a pipe")
	}
	return &Pipe{w, func() {}}, nil
}

// OpenPipe waits for a FIFO's reader.
func OpenPipe(ctx context.Context, name string, src *source.Source, o *Options) (*Pipe, error) {
	if name == "-" {
		return openStdout(ctx, src, o)
	}
	f, err := sys.Wait(ctx, func() (*os.File, error) { return os.OpenFile(name, os.O_WRONLY, 0) })
	if err != nil {
		return nil, fmt.Errorf("open destination: %w", err)
	}
	t, err := openPipe(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return t, nil
}

// Close says what became of the last writes, where that is to be had.
func (t *Pipe) Close() error {
	t.release()
	t.release = func() {}
	if t.w == os.Stdout {
		return nil
	}
	return t.w.Close()
}

package imgcopy

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"
)

// pipe is a target that takes bytes in order: standard output, a FIFO, /dev/null. Holes go through it as zeroes, and
// nothing of it can be taken back.
type pipe struct{ w *os.File }

// openPipe refuses a terminal: an image would garble it and, with the right bytes, type on it.
func openPipe(w *os.File) (target, error) {
	if term.IsTerminal(int(w.Fd())) {
		return nil, errors.New("standard output is a terminal; redirect it to a file or a pipe")
	}
	return &pipe{w}, nil
}

func openPipePath(path string) (target, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open destination: %w", err)
	}
	t, err := openPipe(f)
	if err != nil {
		f.Close()
	}
	return t, err
}

func (t *pipe) file() *os.File    { return nil }
func (t *pipe) blank() bool       { return false }
func (t *pipe) statePath() string { return "" }
func (t *pipe) scratch() *os.File { return nil }
func (t *pipe) abandon(bool)      {}

func (t *pipe) prepare(int64, func() (int64, error), func(*os.File) bool) error { return nil }

func (t *pipe) commit(bool) error {
	if t.w == os.Stdout {
		return nil
	}
	return t.w.Close()
}

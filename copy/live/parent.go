// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// guardian is the parent's side of a guardian under way.
type guardian struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
	s     script
	l     Libvirt
}

// startGuardian returns when the script's steps have been done. helper is the command that runs Guard; l is for undoing what a
// guardian that died has done, nil where no step is libvirt's.
func startGuardian(helper []string, s script, l Libvirt) (*guardian, error) {
	cmd := exec.Command(helper[0], helper[1:]...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a ^C on our terminal, a kill of our group are not for it
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w := &guardian{cmd: cmd, in: in, lines: bufio.NewReader(out), s: s, l: l}
	if err := json.NewEncoder(in).Encode(s); err != nil {
		return nil, w.failed(err)
	}
	switch word, err := w.hear(); {
	case err != nil:
		return nil, w.failed(err)
	case word != sayEntered:
		return nil, errors.Join(errors.New(word), w.wait())
	}
	return w, nil
}

// leave has everything undone. late reports that it was undone before, because the time was up.
func (w *guardian) leave() (late bool, err error) {
	fmt.Fprintln(w.in, sayLeave)
	switch word, err := w.hear(); {
	case err != nil:
		return false, w.failed(err)
	case word == sayLeft, word == sayLate:
		return word == sayLate, w.wait()
	default:
		return false, errors.Join(errors.New(word), w.wait())
	}
}

// drop ends the guardian with nothing undone.
func (w *guardian) drop() error {
	fmt.Fprintln(w.in, sayDrop)
	return w.wait()
}

// failed is for a guardian that died: its work falls to us.
func (w *guardian) failed(err error) error {
	_ = w.cmd.Process.Kill() // it has ended, most likely
	return errors.Join(fmt.Errorf("the helper process died: %w", err), w.wait(), leave(w.s.Steps, w.l))
}

func (w *guardian) wait() error {
	w.in.Close()
	err := w.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) { // it has said why
		return nil
	}
	return err
}

// hear returns the guardian's next line; an error of its own comes quoted.
func (w *guardian) hear() (string, error) {
	line, err := w.lines.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSpace(line)
	if s, err := strconv.Unquote(line); err == nil {
		return s, nil
	}
	return line, nil
}

// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
)

// DefaultLog is where the daemon writes on hosts without a journal.
const DefaultLog = "/var/log/imgward.log"

// logPath is the file that the log goes to; empty if it goes elsewhere.
func (f *Flags) logPath() string {
	terminal := f.Foreground && os.Getenv("JOURNAL_STREAM") == ""
	if f.Log == "" && !terminal && !journal.Enabled() {
		return DefaultLog
	}
	return f.Log
}

// keptLog is the log's file: its path may not be looked up by a successor, for it may lead through the view by then.
const keptLog = "log-file"

// takeLog is openLog for a worker: after a take-over, with the predecessor's file.
func (w *worker) takeLog(foreground bool, kept map[string]int) (f *os.File, err error) {
	if fd, ok := kept[keptLog]; ok {
		f = os.NewFile(uintptr(fd), w.flags.Log)
		w.log = slog.New(slog.NewTextHandler(f, nil)).With("view", w.mountpoint)
		return f, nil
	}
	if w.log, f, err = openLog(w.flags.Log, foreground); err != nil {
		return f, err
	}
	w.log = w.log.With("view", w.mountpoint)
	if f == nil {
		return nil, nil
	}
	return f, w.keepLog(f)
}

func (w *worker) keepLog(f *os.File) error {
	if err := w.keeper.Keep(keptLog, int(f.Fd())); err != nil {
		return fmt.Errorf("hand the log to the keeper: %w", err)
	}
	return nil
}

// reopenLog goes on in a new file, where logrotate(8) has moved the log away. A path that leads through the view by now is
// not opened: the worker would wait for itself.
func (w *worker) reopenLog() {
	path := w.flags.logPath()
	if w.logFile == nil || path == "" {
		return
	}
	if w.policy.inView(path) {
		w.log.Warn("the log's path leads through the view now; it is not opened again", "path", path)
		return
	}
	f, err := openLogFile(path)
	if err != nil {
		w.log.Warn("the log cannot be opened again; it goes on in the file before", "error", err)
		return
	}
	defer f.Close()
	if err := replaceLog(w.logFile, f); err != nil {
		w.log.Warn("the log goes on in the file before", "error", err)
		return
	}
	w.keeper.Drop(keptLog)
	if err := w.keepLog(w.logFile); err != nil {
		w.log.Warn("a successor of this worker goes on in the log before", "error", err)
	}
}

// replaceLog puts another file behind the log's descriptor, and behind standard output and error if they go there.
func replaceLog(log, with *os.File) error {
	var old unix.Stat_t
	if err := unix.Fstat(int(log.Fd()), &old); err != nil {
		return err
	}
	for _, std := range []int{1, 2} {
		var st unix.Stat_t
		if unix.Fstat(std, &st) == nil && st.Dev == old.Dev && st.Ino == old.Ino {
			_ = unix.Dup2(int(with.Fd()), std)
		}
	}
	return unix.Dup3(int(with.Fd()), int(log.Fd()), unix.O_CLOEXEC)
}

func openLogFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return f, nil
}

// openLog opens the daemon's log: the terminal in the foreground, a file that was asked for, the journal, or a file.
func openLog(path string, foreground bool) (*slog.Logger, *os.File, error) {
	switch {
	case path != "":
	case foreground && !(os.Getenv("JOURNAL_STREAM") != "" && journal.Enabled()): // a terminal, no service
		return slog.New(slog.NewTextHandler(os.Stderr, nil)), nil, nil
	case journal.Enabled():
		return slog.New(&journalHandler{}), nil, nil
	default:
		path = DefaultLog
	}
	f, err := openLogFile(path)
	if err != nil {
		return nil, nil, err
	}
	return slog.New(slog.NewTextHandler(f, nil)), f, nil
}

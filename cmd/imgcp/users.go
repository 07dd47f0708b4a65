// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

// users answers the copy engine's question with the guard's evidence.
type users struct{ g *guard.Guard }

func newUsers(log *slog.Logger) (*users, error) {
	g, err := guard.New(guard.Config{Log: log, Brief: true})
	if err != nil {
		return nil, err
	}
	return &users{g}, nil
}

// InUse implements source.Users.
func (u *users) InUse(ctx context.Context, f *os.File) ([]guard.Use, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	own, err := duplicate(f) // f may be closed before the question is answered
	open := func() (*os.File, error) {
		if err != nil { // not readable by this user
			return nil, err
		}
		return duplicate(own)
	}
	answer := make(chan []guard.Use, 1)
	go func() {
		defer own.Close() // nil is no harm
		answer <- u.g.Who(ctx, &guard.Request{Image: guard.StatID(&st), Open: guard.Descriptor(open)})
	}()
	return patiently(ctx, answer)
}

// duplicate is another descriptor of the same open file, so that the guard may ask the kernel whether that is the only one
// (procfs.Leases), and need not look at every process. What cannot be read is opened once more.
func duplicate(f *os.File) (*os.File, error) {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_ACCMODE == unix.O_WRONLY {
		return guard.Reopen(int(f.Fd()))
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "duplicate the descriptor of", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// patiently waits for an answer for as long as nobody interrupts: a file system of somebody else's that hangs may keep
// evidence from being read for minutes.
func patiently(ctx context.Context, answer <-chan []guard.Use) ([]guard.Use, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case uses := <-answer:
		if ctx.Err() != nil { // it may have been cut short
			return nil, context.Cause(ctx)
		}
		return uses, nil
	}
}

// Permitted implements source.Users. Exceptions are the daemon's, so it is asked through its own command;
// outside of views there are none.
func (u *users) Permitted(ctx context.Context, f *os.File) bool {
	imgward, err := findImgward()
	if err != nil {
		return false
	}
	out, err := exec.CommandContext(ctx, imgward, "check", "--json", "truncate", f.Name()).Output()
	if err != nil {
		return false
	}
	var verdict struct {
		Allowed   bool   `json:"allowed"`
		Exception uint64 `json:"exception"`
	}
	return json.Unmarshal(out, &verdict) == nil && verdict.Allowed && verdict.Exception != 0
}

// findImgward looks in this program's directory first: the two are installed together.
func findImgward() (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), "imgward")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return exec.LookPath("imgward")
}

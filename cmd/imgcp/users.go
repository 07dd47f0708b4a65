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

// InUse implements imgcopy.Users.
func (u *users) InUse(ctx context.Context, f *os.File) ([]guard.Use, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	own, err := guard.Reopen(int(f.Fd())) // f may be closed before the question is answered
	open := func() (*os.File, error) {
		if err != nil { // not readable by this user
			return nil, err
		}
		return guard.Reopen(int(own.Fd()))
	}
	answer := make(chan []guard.Use, 1)
	go func() {
		defer own.Close() // nil is no harm
		answer <- u.g.Who(ctx, guard.StatID(&st), guard.Descriptor(open))
	}()
	return patiently(ctx, answer)
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

// Permitted implements imgcopy.Users. Exceptions are the daemon's, so it is asked through its own command. An image in
// use that may be truncated all the same is what an exception looks like from here; outside of views there are none.
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
		Allowed bool              `json:"allowed"`
		Uses    []json.RawMessage `json:"uses"`
	}
	return json.Unmarshal(out, &verdict) == nil && verdict.Allowed && len(verdict.Uses) > 0
}

// findImgward looks beside this program first: the two are installed together.
func findImgward() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "imgward")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	return exec.LookPath("imgward")
}

// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	"imgward/guard"
	"imgward/guard/policy"
)

// DefaultPolicy is the file that is used where none is asked for; without it the preset "default" holds.
const DefaultPolicy = "/etc/imgward/policy.toml"

// policyFile keeps a view's policy what its file says. A file that cannot be used changes nothing.
type policyFile struct {
	path  string
	given bool   // by -o policy=FILE: it has to be there
	saved string // where the policy in force is written down for a successor
	host  guard.Host
	// inView says whether a path leads into the view.
	inView func(path string) bool
	root   string // before a path, leads to the host's file (guard.Config.HostRoot)
	log    *slog.Logger
	guard  *guard.Guard // set once there is one, before anything is reloaded

	mu    sync.Mutex
	fault error // why the file was not taken over when it was read last
	stamp stamp // of the file when it was read last
}

// stamp tells whether a file has changed. Zero: there is none.
type stamp struct {
	dev, ino    uint64
	size        int64
	mtime, ctim unix.Timespec
}

// first is the policy to begin with: the file's, else the one that held before a take-over, else the preset. A mistake
// in the file does not keep a view from being mounted: protected by default is better than not protected.
func (f *policyFile) first(takeover bool) *policy.Policy {
	p, err := f.read()
	if err == nil && p.Source == f.path {
		return p
	}
	// The file is gone or invalid; what the predecessor had in force holds on.
	if takeover {
		if before, savedErr := f.restore(); savedErr == nil {
			p = before
		}
	}
	if p == nil {
		p = policy.Default()
	}
	if err != nil {
		f.fault = fmt.Errorf("%w; %s holds", err, p.Source)
		f.log.Error("the policy cannot be used", "error", f.fault)
		if !takeover {
			fmt.Fprintf(os.Stderr, "imgward: WARNING: %v\n", f.fault)
		}
	}
	return p
}

// read reads and checks the file. A default file that is not there is no error: the preset stands in for it.
func (f *policyFile) read() (*policy.Policy, error) {
	if f.inView(f.path) {
		return nil, fmt.Errorf("policy %s: it leads into the view, which it is about; put it elsewhere", f.path)
	}
	file, err := f.host.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		f.stamp = stamp{}
		if !f.given {
			return policy.Default(), nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", f.path, cause(err))
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, fmt.Errorf("policy %s: %w", f.path, err)
	}
	f.stamp = stampOf(&st)
	// Whoever can write the policy can end the protection.
	if st.Uid != 0 || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("policy %s: others than root can change it (chown root, chmod go-w)", f.path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxPolicy))
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", f.path, err)
	}
	return policy.Parse(f.path, text)
}

// maxPolicy is more than policy.Parse takes, in bytes.
const maxPolicy = 2 << 20

func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}

// Reload takes the file's policy over, whole or not at all. It says whether another policy holds now.
func (f *policyFile) Reload(context.Context) (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.guard.Policy()
	p, err := f.read()
	if err != nil {
		f.fault = fmt.Errorf("%w; what was read before from %s stays in force", err, now.Source)
		f.log.Error("the policy cannot be used", "error", f.fault)
		f.guard.Events().Publish(&guard.Event{Type: control.EventPolicyRejected, Source: f.path, Reason: f.fault.Error()})
		return false, f.fault
	}
	f.fault = nil
	if p.Source == now.Source && described(p) == described(now) {
		return false, nil
	}
	f.guard.SetPolicy(p)
	if err := f.save(p); err != nil {
		f.log.Warn("the policy cannot be written down for a successor", "error", err)
	}
	return true, nil
}

func described(p *policy.Policy) string {
	var b bytes.Buffer
	_ = p.Describe(&b) // a bytes.Buffer takes everything
	return b.String()
}

// save writes down what holds, with its source in the first line, as Describe does.
func (f *policyFile) save(p *policy.Policy) error { return control.WriteWhole(f.saved, described(p)) }

func (f *policyFile) restore() (*policy.Policy, error) {
	text, err := os.ReadFile(f.saved)
	if err != nil {
		return nil, err
	}
	source, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
	return policy.Parse(source, text)
}

// Fault is why the file that is there now is not in force; nil if it is. It does not wait for a file that is being read, which
// may lie on a file system that does not answer.
func (f *policyFile) Fault() error {
	if !f.mu.TryLock() {
		return fmt.Errorf("policy %s is being read and has not answered yet; what was read before stays in force", f.path)
	}
	defer f.mu.Unlock()
	return f.fault
}

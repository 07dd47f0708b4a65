// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"imgward/copy/domain/libvirtd"
)

// script is what a guardian does: steps that bring machines into a state nobody may leave them in, each with what undoes it.
type script struct {
	Steps []step        `json:"steps"`
	Limit time.Duration `json:"limit_ns"` // undo after this long, whatever the parent is doing; 0: no limit
}

// step is one of them.
type step struct {
	Kind   kind     `json:"kind"`
	Domain string   `json:"domain,omitempty"` // its UUID or name
	XML    string   `json:"xml,omitempty"`    // of a backup
	Args   []string `json:"args,omitempty"`   // of run and remove
}

// kind is what a step does and undoes.
type kind string

const (
	suspend kind = "suspend" // suspend the domain; resume it
	freeze  kind = "freeze"  // freeze the guest's file systems; thaw them
	backup  kind = "backup"  // begin a backup; abort it
	remove  kind = "remove"  // nothing; remove these files
	run     kind = "run"     // nothing; run this command
)

func (s *step) enter(ctx context.Context, l Libvirt) error {
	if s.Kind == remove || s.Kind == run {
		return nil
	}
	d, err := find(ctx, l, s.Domain)
	if err != nil {
		return err
	}
	switch s.Kind {
	case suspend:
		return l.Suspend(ctx, d)
	case freeze:
		return l.FreezeFS(ctx, d)
	case backup:
		return l.BeginBackup(ctx, d, s.XML)
	}
	return fmt.Errorf("%q is nothing that can be done", s.Kind)
}

// leave undoes it. It is no error if there is nothing to undo: the domain runs, is gone, or has no job any more.
func (s *step) leave(ctx context.Context, l Libvirt) error {
	switch s.Kind {
	case run:
		if out, err := exec.CommandContext(ctx, s.Args[0], s.Args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(s.Args, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	case remove:
		var errs []error
		for _, path := range s.Args {
			errs = append(errs, removeIfThere(path))
		}
		return errors.Join(errs...)
	}
	d, err := find(ctx, l, s.Domain)
	if err == nil {
		switch s.Kind {
		case suspend:
			err = l.Resume(ctx, d)
		case freeze:
			err = l.ThawFS(ctx, d)
		case backup:
			err = l.AbortJob(ctx, d)
		}
	}
	if errors.Is(err, libvirtd.ErrNoDomain) || errors.Is(err, libvirtd.ErrInvalid) {
		return nil
	}
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"imgward/copy/domain/libvirtd"
	"imgward/copy/internal/sys"
)

// Repair undoes what an interrupted run has left on a domain, running or not, defined or gone. It is done again and again
// until nothing is left; without anything to undo it does nothing. throttle is as Options.Throttle; 0: as the run had it.
func Repair(ctx context.Context, conn *libvirtd.Conn, name, stateDir string, throttle uint64, log *slog.Logger) error {
	d, err := conn.Domain(ctx, name)
	if errors.Is(err, libvirtd.ErrNoDomain) {
		// A transient domain that has ended: only the intent knows it.
		if d, err = gone(stateDir, name); err != nil || d.UUID == "" {
			return err
		}
	}
	if err != nil {
		return err
	}
	found, err := repair(ctx, conn, d, stateDir, throttle, log)
	if err == nil && !found {
		err = strange(ctx, conn, d)
	}
	return err
}

// gone finds a domain that libvirt does not know by what is to be undone to it.
func gone(stateDir, name string) (libvirtd.Domain, error) {
	files, _ := filepath.Glob(filepath.Join(stateDir, "domains", "*.json"))
	for _, file := range files {
		i := intent{path: file}
		if err := i.read(); err == nil && i.Domain == name {
			return libvirtd.Gone(name, i.UUID)
		}
	}
	return libvirtd.Domain{}, fmt.Errorf("%w, and there is nothing to undo for one of this name: %s", libvirtd.ErrNoDomain, name)
}

// waitFor is how long somebody else may be at work on the domain: the guardian of a killed run.
const waitFor = 2 * time.Minute

// repair says whether there was something to undo.
func repair(ctx context.Context, conn *libvirtd.Conn, d libvirtd.Domain, stateDir string, throttle uint64, log *slog.Logger) (found bool, err error) {
	var in *intent
	for end := time.Now().Add(waitFor); ; {
		var err error
		in, err = loadIntent(stateDir, d.UUID)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrRepairing) || time.Now().After(end) {
			return true, err
		}
		if err := sys.Sleep(ctx, mergePoll); err != nil {
			return true, err
		}
	}
	if in == nil {
		return false, nil
	}
	in.Throttle = cmp.Or(throttle, in.Throttle)
	log.Warn("an interrupted run has left something on the domain; undoing it", "domain", in.Domain, "method", in.Method, "begun", in.Begun.Format(time.DateTime))
	m := &merger{conn: conn, d: d, in: in, log: log, limit: mergeLimit}
	if err := m.all(ctx); err != nil {
		in.release()
		return true, err
	}
	return true, nil
}

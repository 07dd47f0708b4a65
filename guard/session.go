// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"time"

	"imgward/guard/libvirt"
)

// Ordinary users run domains as well (qemu:///session), and keep the status files in a directory of their own. What
// stands there protects nothing: anybody could write there that root's files are in use. Their VMMs protect what they
// have open, like any VMM; the files only give these a name. They are read in the background, since a user may mount
// over the directory a file system that never answers.

const readSessionsEvery = 10 * time.Second

// keepSessions reads the status files of ordinary users until ctx ends.
func (g *Guard) keepSessions(ctx context.Context) {
	tick := time.NewTicker(readSessionsEvery)
	defer tick.Stop()
	for {
		_ = g.sessions.locked(ctx, func() {})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// named fills in what libvirt knows of a use that was found by its process.
func (g *Guard) named(ctx context.Context, id ID, u Use) Use {
	found := false
	// Without the status files the use stands, only without a name.
	_ = g.domains.locked(ctx, func() { found = g.domains.name(id, &u) })
	if found {
		return u
	}
	if g.config.Brief { // nobody has read them yet
		_ = g.sessions.locked(ctx, func() { g.sessions.name(id, &u) })
		return u
	}
	select {
	case g.sessions.sem <- struct{}{}:
		g.sessions.name(id, &u)
		<-g.sessions.sem
	default: // they are being read, which may last for ever
	}
	return u
}

func bySession(dirs []libvirt.Dir) (system, session []libvirt.Dir) {
	for _, d := range dirs {
		if d.Session {
			session = append(session, d)
		} else {
			system = append(system, d)
		}
	}
	return system, session
}

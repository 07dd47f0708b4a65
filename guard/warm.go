// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"time"

	"imgward/guard/libvirt"
)

const (
	// rereadEvery is how often everything is looked at without a question or an event: paths are followed anew, since
	// what they lead to may change (a mount, a symbolic link) without a trace in libvirt's directories.
	rereadEvery = 30 * time.Second
	// share bounds what keeping warm costs: after a refresh that took a millisecond it rests for share milliseconds.
	share = 20
)

// keepWarm keeps the evidence near the present, so that a question finds little to do. No decision rests on it.
func (g *Guard) keepWarm(ctx context.Context) {
	watcher := g.watch(ctx)
	if watcher != nil {
		defer g.lookups.Do("end of the watcher", func() { _ = watcher.Close() })
	}
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	for whole := true; ; {
		began := time.Now()
		g.refresh(ctx, whole)
		if watcher != nil {
			dirs := g.domains.dirs(ctx)
			g.lookups.Do("watch libvirt's directories", func() { watcher.Follow(dirs) })
		}
		if !rest(ctx, share*time.Since(began)) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			whole = true
		case <-g.kick:
			whole = false
		}
	}
}

// watch returns nil where nothing can be watched.
func (g *Guard) watch(ctx context.Context) *libvirt.Watcher {
	watcher, err := libvirt.NewWatcher()
	if err != nil {
		g.log.Warn("changes are noticed only when somebody asks", "err", err)
		return nil
	}
	g.done.Go(func() { watcher.Run(ctx, g.domains.index, g.wake) })
	return watcher
}

// refresh brings the evidence up to date; a whole refresh takes nothing for granted.
func (g *Guard) refresh(ctx context.Context, whole bool) {
	for _, s := range []*domains{g.domains, g.saved, g.inForce.Load().defined} {
		if s == nil {
			continue
		}
		if whole {
			s.index.MarkAllStale()
			s.everything.Store(true)
		}
		if err := s.locked(ctx, func() {}); err != nil && ctx.Err() == nil {
			g.log.Warn("destroyers are refused until libvirt's files can be read", "err", err)
		}
	}
	g.exceptions.current(time.Now()) // those that have run out are reported now, at the latest
}

// wake makes keepWarm refresh soon.
func (g *Guard) wake() {
	g.config.Changed()
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(min(d, rereadEvery))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

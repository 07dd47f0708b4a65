// SPDX-License-Identifier: Apache-2.0

// Package claims holds block devices that virtual machines use open with O_EXCL, so that whoever wants one for himself is
// told EBUSY: mkfs, wipefs, mkswap, pvcreate, mount, before they write anything. Reading, and opening without O_EXCL as VMMs
// do, is not hindered (bd_prepare_to_claim, block/bdev.c). Any kernel will do.
//
// A claim is a descriptor. It is left with the keeper, so that it lasts when this process dies.
package claims

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/layers"
	"imgward/guard/policy"
	"imgward/guard/second"
)

// Name is the layer's.
const Name = "claims"

// Layer claims the block devices that are declared, and those below and above them.
type Layer struct {
	config *second.Config
	log    *slog.Logger
	stack  layers.Stack

	mu   sync.Mutex
	held map[layers.ID]*claim
	left []second.Hold // devices in use that are not claimed, and why
	// released is when Release let go of what. A Declare that had begun before does not take it again.
	released map[layers.ID]time.Time
}

// claim is one device that is held.
type claim struct {
	fd     int
	path   string
	uses   []guard.Use
	images []guard.ID // in use, for which it is held; none: a predecessor's, of which nothing is known yet
	// parts: partitions are in use as well, which this claim holds.
	parts bool
}

// New takes over the claims that a predecessor left.
func New(c *second.Config) (second.Layer, error) {
	l := &Layer{config: c, log: c.Log, held: make(map[layers.ID]*claim), released: make(map[layers.ID]time.Time)}
	for name, fd := range c.Kept {
		if !strings.HasPrefix(name, Name+"-") {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return nil, fmt.Errorf("what a predecessor left as %s is no block device", name)
		}
		id := layers.Device(st.Rdev)
		l.held[id] = &claim{fd: fd, path: l.stack.Path(id)}
	}
	return l, nil
}

// Maker makes it.
func Maker() second.Maker { return second.Maker{Name: Name, Make: New} }

// Name implements second.Layer.
func (l *Layer) Name() string { return Name }

// Declare implements second.Layer. What is in use no more is let go of first: somebody waits for it.
func (l *Layer) Declare(_ context.Context, d *second.Declaration) error {
	wanted := l.wanted(d)
	l.release(wanted, d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = l.left[:0]
	for _, c := range l.held {
		c.parts = false
	}
	var failed []error
	for _, w := range wanted {
		if c := l.held[w.id]; c != nil {
			c.uses, c.images = w.uses, w.images
			continue
		}
		if disk, ok := l.stack.Disk(w.id); ok && l.held[disk] != nil {
			l.held[disk].parts = true
			continue // the disk's claim holds its partitions as well
		}
		if l.released[w.id].After(d.At) || !slices.ContainsFunc(w.uses, lives) {
			continue // the use has ended since
		}
		why, err := l.claim(w)
		if err != nil {
			failed = append(failed, err)
		}
		if why != "" {
			l.left = append(l.left, second.Hold{ID: guard.ID(w.id), Path: w.path, Uses: w.uses, Left: why})
		}
	}
	maps.DeleteFunc(l.released, func(_ layers.ID, at time.Time) bool { return at.Before(d.At) })
	return errors.Join(failed...)
}

// release lets go of all that is not wanted, but for devices of which nobody knows whether they are in use: while a status file
// cannot be read, what is held stays held.
func (l *Layer) release(wanted []device, d *second.Declaration) {
	_, unknown := d.Uses[guard.ID{}]
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.held {
		is := func(w device) bool { return w.id == id }
		if !slices.ContainsFunc(wanted, is) && (!unknown || !l.stack.Exists(id) || excepted(id, d)) {
			l.letGo(id)
		}
	}
}

// letGo closes a claim, with mu held.
func (l *Layer) letGo(id layers.ID) {
	began, c := time.Now(), l.held[id]
	l.config.Keeper.Drop(nameOf(id)) // the keeper closes its own before anybody is told
	unix.Close(c.fd)
	delete(l.held, id)
	l.log.Info("let go of a device", "device", c.path, "took", time.Since(began))
}

// HeldFor implements second.Releaser.
func (l *Layer) HeldFor() map[guard.ID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	images := make(map[guard.ID]bool)
	for _, c := range l.held {
		for _, id := range c.images {
			images[id] = true
		}
	}
	return images
}

// Release implements second.Releaser.
func (l *Layer) Release(inUse func(guard.ID) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, c := range l.held {
		if len(c.images) > 0 && !c.parts && !slices.ContainsFunc(c.images, inUse) {
			l.letGo(id)
			l.released[id] = time.Now()
		}
	}
}

func lives(u guard.Use) bool { return !second.Ended(u) }

// Status implements second.Layer.
func (l *Layer) Status() second.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := second.Status{Layer: Name, Active: true}
	p := l.config.Guard.Policy()
	if why := unprotected(p); why != "" {
		s.Active, s.Reason = false, why
	}
	for id, c := range l.held {
		s.Holds = append(s.Holds, second.Hold{ID: guard.ID(id), Path: c.path, Uses: c.uses})
	}
	s.Holds = append(s.Holds, l.left...)
	slices.SortFunc(s.Holds, func(a, b second.Hold) int { return strings.Compare(a.Path, b.Path) })
	return s
}

// Close implements second.Layer: the keeper has every claim.
func (l *Layer) Close() error { return nil }

// Remove implements second.Layer.
func (l *Layer) Remove() error {
	l.release(nil, &second.Declaration{})
	return nil
}

// nameOf is how the keeper knows a claim.
func nameOf(id layers.ID) string {
	return fmt.Sprintf("%s-%d-%d", Name, unix.Major(id.Ino), unix.Minor(id.Ino))
}

// unprotected says why the policy wants no claims.
func unprotected(p *policy.Policy) string { return p.Unprotected(&p.Default) }

// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"imgward/cmd/imgward/control"
	"imgward/fs/mounttable"
	"imgward/guard"
)

// mountWatch follows what the mount table says of the view. A view that is covered, moved or taken away still serves those
// who hold files of it, but whoever comes by its path passes by it: that must not go unsaid.
type mountWatch struct {
	home    string // where the view was mounted
	dev     uint64
	log     *slog.Logger
	publish func(*guard.Event)
	vms     func() int                                  // VMs that hold files of the view open
	takeIn  func(t *mounttable.Table, dir string) error // makes what is mounted on a directory part of the view
	// forgotten has the kernel look up a directory again on which something is mounted no more, or otherwise.
	forgotten func(dir string)
	marker    string // a file that says to a successor that the view was unmounted on purpose

	mu    sync.Mutex
	now   mountState
	apart map[string]string // why what is mounted on a directory is no part of the view
	// ending is until when an end is expected: the view is about to be unmounted on purpose.
	ending time.Time
}

// mountState is what the mount table says of a view. The zero value: all is well.
type mountState struct {
	gone  bool     // unmounted, and not on purpose
	dead  bool     // gone, and mounted still: the kernel has ended its connection
	ended bool     // unmounted on purpose; who holds files of it is served
	moved string   // where to
	cover string   // what hides it: "tmpfs on /var/lib"
	below []string // mountpoints on its directories that are no part of it
}

func stateOf(t *mounttable.Table, dev uint64, home string) (s mountState) {
	m := t.Find(dev, home)
	if m == nil {
		return mountState{gone: true}
	}
	if m.Mountpoint != home {
		s.moved = m.Mountpoint
	}
	if c := t.Cover(m); c != nil {
		s.cover = fmt.Sprintf("%s on %s", c.FSType, c.Mountpoint)
	}
	for _, b := range t.On(m) {
		// A bind mount of the view's own directories is the view, and nothing is lost below a read-only mount.
		if mounttable.Device(b) != dev && !mounttable.ReadOnly(b) {
			s.below = append(s.below, b.Mountpoint)
		}
	}
	slices.Sort(s.below)
	return s
}

// endOf is the state of a view whose connection has ended: if it is mounted still, umount -f has done that, or the abort file.
func endOf(s mountState) mountState {
	s.dead = !s.gone
	s.gone = true
	return s
}

// follow watches until ctx ends.
func (w *mountWatch) follow(ctx context.Context, r *mounttable.Reader) {
	err := r.Follow(ctx, func(t *mounttable.Table) {
		s := stateOf(t, w.dev, w.home)
		s.below = slices.DeleteFunc(s.below, func(dir string) bool { return w.takesIn(t, dir) })
		w.look(s)
	})
	if err != nil {
		w.log.Warn("the mount table cannot be watched; imgward status looks at it when asked", "error", err)
	}
}

func (w *mountWatch) look(next mountState) {
	w.mu.Lock()
	before := w.now
	if next.gone && !next.dead && w.onPurpose() {
		next.gone, next.ended = false, true
	}
	if before.ended && !next.ended {
		_ = os.Remove(w.marker) // it was mounted again
	}
	w.now = next
	w.mu.Unlock()

	w.changed(control.EventViewGone, "", before.gone, next.gone, w.goneLine())
	if before.moved != next.moved {
		w.changed(control.EventViewMoved, next.moved, false, next.moved != "", w.movedLine(next.moved))
	}
	if before.cover != next.cover {
		w.changed(control.EventViewCovered, before.cover, before.cover != "", false, w.coverLine(before.cover))
		w.changed(control.EventViewCovered, next.cover, false, next.cover != "", w.coverLine(next.cover))
	}
	for _, b := range before.below {
		if !slices.Contains(next.below, b) {
			w.forgotten(b)
			w.changed(control.EventMountBelow, b, true, false, w.belowLine(b))
		}
	}
	for _, b := range next.below {
		if !slices.Contains(before.below, b) {
			w.changed(control.EventMountBelow, b, false, true, w.belowLine(b))
		}
	}
}

// takesIn makes a file system that has been mounted below the view part of it, if it can be.
func (w *mountWatch) takesIn(t *mounttable.Table, dir string) bool {
	w.mu.Lock()
	known := slices.Contains(w.now.below, dir)
	w.mu.Unlock()
	if known {
		return false // it could not be when it came
	}
	if err := w.takeIn(t, dir); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.apart[dir] = err.Error()
		return false
	}
	line := fmt.Sprintf("the file system that was mounted on %s, below the view, is part of the view now, until that ends", dir)
	w.log.Info(line)
	w.publish(&guard.Event{Type: control.EventMountBelow, Source: dir, Reason: line, Change: "taken-in"})
	return true
}

// onPurpose says whether the end of the view's mount was announced, to this worker or to one before it.
func (w *mountWatch) onPurpose() bool {
	if w.now.ended {
		return true
	}
	if time.Now().Before(w.ending) {
		_ = os.WriteFile(w.marker, nil, 0o600) // without it a successor says once too often that the view is gone
		return true
	}
	_, err := os.Stat(w.marker)
	return err == nil
}

// changed reports what began or ended.
func (w *mountWatch) changed(t guard.EventType, source string, was, is bool, line string) {
	if was == is {
		return
	}
	e := &guard.Event{Type: t, Source: source, Reason: line, Change: "began"}
	if was {
		e.Change, e.Reason = "ended", "no longer: "+line
		w.log.Info(e.Reason)
	} else if vms := w.vms(); vms > 0 {
		e.Reason = fmt.Sprintf("%s; %d VMs hold files of the view", line, vms)
		w.log.Error(e.Reason)
	} else {
		w.log.Warn(line)
	}
	w.publish(e)
}

func (w *mountWatch) goneLine() string {
	w.mu.Lock()
	dead := w.now.dead
	w.mu.Unlock()
	if dead {
		return fmt.Sprintf("the kernel has ended the view on %s, which is mounted still (umount -f does that, though it says \"busy\"): "+
			"who has files of it open gets errors, VMs as well (umount -l %s, then imgward mount %s)", w.home, w.home, w.home)
	}
	return fmt.Sprintf("the view is no longer mounted on %s: it was unmounted, not by imgward umount, and nothing that is opened there now is protected (imgward mount %s)", w.home, w.home)
}

func (w *mountWatch) movedLine(to string) string {
	return fmt.Sprintf("the view was moved to %s: what is opened at %s itself is not protected", to, w.home)
}

func (w *mountWatch) coverLine(cover string) string {
	return fmt.Sprintf("the view on %s is covered by %s: files opened there are not protected (unmount that)", w.home, cover)
}

func (w *mountWatch) belowLine(dir string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("a file system was mounted on %s, below the view: what is in it is not protected (%s)", dir, w.apart[dir])
}

// endWithin is how soon an end comes that was announced. If it does not, the view was in use.
const endWithin = 10 * time.Second

// expectEnd is called before the view is unmounted on purpose.
func (w *mountWatch) expectEnd() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending = time.Now().Add(endWithin)
}

// warnings is what is wrong now.
func (w *mountWatch) warnings() []string {
	w.mu.Lock()
	now := w.now
	w.mu.Unlock()
	var list []string
	if now.gone {
		list = append(list, w.goneLine())
	}
	if now.ended {
		list = append(list, fmt.Sprintf("the view was unmounted from %s: who holds files of it is served until they let go", w.home))
	}
	if now.moved != "" {
		list = append(list, w.movedLine(now.moved))
	}
	if now.cover != "" {
		list = append(list, w.coverLine(now.cover))
	}
	for _, b := range now.below {
		list = append(list, w.belowLine(b))
	}
	return list
}

// Reachable says whether who opens something at the view's mountpoint comes to the view.
func (w *mountWatch) Reachable() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.now.gone && !w.now.ended && w.now.moved == "" && w.now.cover == ""
}

// Gone says whether the view was unmounted, and not on purpose.
func (w *mountWatch) Gone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now.gone
}

// Below counts the file systems that were mounted below the view since, and are no part of it.
func (w *mountWatch) Below() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.now.below)
}

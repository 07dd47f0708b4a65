// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"context"
	"path/filepath"
	"time"

	"imgward/guard"
	"imgward/guard/layers"
)

// Refused implements Observer: the guard explains it, as it does for a view.
func (l *layer) Refused(r Refusal) {
	q, v := l.question(&r)
	l.config.Guard.Refused(q, v)
}

// Excepted implements Observer.
func (l *layer) Excepted(r Refusal) { l.config.Guard.Spent(r.Exception, r.Op, l.caller(&r)) }

// Changed implements Observer.
func (l *layer) Changed(int) {
	l.config.Look()
	l.config.Soon()
}

func (l *layer) question(r *Refusal) (*guard.Request, *guard.Verdict) {
	v := &guard.Verdict{Errno: r.Errno, Caller: *l.caller(r), Audit: r.Audit}
	q := &guard.Request{Op: r.Op, TID: r.PID, UID: r.UID}
	switch r.Op {
	case guard.OpUmount, guard.OpMove, guard.OpCover:
		l.mu.Lock()
		point := l.mounted[r.Device]
		l.mu.Unlock()
		if point == "" {
			break // a mount over an image
		}
		q.Path = func() string { return point }
		v.Reason = "virtual machines have files of the view open: imgward umount names them"
		return q, v
	}
	q.Image, v.Uses = l.uses(r)
	path := r.Name
	if len(v.Uses) == 0 {
		v.Reason = "a virtual machine has it open"
	} else {
		v.Reason = guard.Reason(v.Uses[0])
		// A name that no evidence has is an additional link's, or a directory's above the image.
		if p := v.Uses[0].Path; filepath.IsAbs(p) && v.Uses[0].Layer == "" && filepath.Base(p) == r.Name {
			path = p
		}
	}
	if q.Image.Dev == guard.BlockDevice {
		if p := l.stack.Path(layers.ID(q.Image)); p != "" {
			path = p
		}
	}
	q.Path = func() string { return path }
	return q, v
}

// uses are what is known of an image that the kernel has refused to harm.
func (l *layer) uses(r *Refusal) (guard.ID, []guard.Use) {
	id := r.Image
	if id == (guard.ID{}) {
		id = guard.ID{Dev: r.Device, Ino: r.Ino}
		if r.Ino == 0 {
			id = guard.ID{Dev: guard.BlockDevice, Ino: r.Device}
		}
	}
	l.mu.Lock()
	if named, ok := l.known[id]; ok {
		id = named
	}
	uses := l.declared.Uses[id]
	if len(uses) == 0 {
		uses = l.also[id]
	}
	l.mu.Unlock()
	if len(uses) > 0 {
		return id, uses
	}
	// A device that shares bytes with one in use, or an image that a VMM has opened just now.
	stack := l.stack.Once()
	for _, o := range stack.Related(layers.ID(id)) {
		l.mu.Lock()
		above := l.declared.Uses[guard.ID(o.ID)]
		l.mu.Unlock()
		if len(above) > 0 {
			return id, above
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return id, l.config.Guard.InUse(ctx)[id]
}

// caller is who was refused. It may have ended, and then the kernel alone knows what it was.
func (l *layer) caller(r *Refusal) *guard.Process {
	p := l.config.Guard.Classify(r.PID, r.UID)
	if p.Start != r.Start {
		p = guard.Process{PID: r.PID, Start: r.Start, UID: r.UID, Class: guard.ClassOutsider}
	}
	p.Comm, p.TTY = r.Comm, r.TTY
	switch {
	case r.Class&VMM != 0:
		p.Class = guard.ClassVMM
	case r.Class&Manager != 0:
		p.Class = guard.ClassManager
	}
	return &p
}

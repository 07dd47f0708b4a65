package guard

// standing is an opener as it is now.
type standing struct {
	Opener      // with the class that its process has now, or had at the open if that has ended
	gone   bool // its process has ended: the handle's release is on its way, or something else has the handle
}

// now looks at an opener's process. It may have executed another program since it opened the image, or have ended
// while something that got the descriptor from it goes on: a child, a loop device. One that was not visible when it
// opened the image is what it was then.
func (q *inquiry) now(o Opener) standing {
	if o.PID == 0 {
		o.Class = ClassOutsider
		return standing{Opener: o}
	}
	p := identify(q.procs.Other, o.PID, o.UID)
	if !p.is(o.Process) {
		return standing{Opener: o, gone: true}
	}
	o.Comm, o.Exe, o.Class = p.Comm, p.Exe, p.Class
	return standing{Opener: o}
}

// openVMMs are the VMMs among the openers, but for the caller itself. One that has ended still counts: its writes may
// not have.
func (q *inquiry) openVMMs() []standing {
	var vmms []standing
	for _, o := range q.Openers {
		if o.is(q.caller) {
			continue
		}
		if s := q.now(o); s.Class == ClassVMM {
			vmms = append(vmms, s)
		}
	}
	return vmms
}

// writers are those that have the image open for writing through the view, but for the caller itself: outsiders, and
// managers that hold no lock through the handle. libvirtd keeps a disk open read-write to hold its lock on byte 1, as
// virtlockd does to hold its lease; vol-upload, vol-wipe and qemu-img write. A process that has ended and whose class nobody
// remembers (the daemon was restarted since) counts: it may have been losetup.
func (q *inquiry) writers() []standing {
	var writers, managers []standing
	for _, o := range q.Openers {
		if !o.Write || o.is(q.caller) {
			continue
		}
		switch s := q.now(o); {
		case s.Class == ClassOutsider, s.Class == "":
			writers = append(writers, s)
		case s.Class == ClassManager && !o.Locked && !o.Checked && !s.gone:
			managers = append(managers, s)
		}
	}
	return append(writers, managers...)
}

// allChecked says whether each write of these is judged, so that it can still be refused.
func allChecked(writers []standing) bool {
	for _, w := range writers {
		if !w.Checked {
			return false
		}
	}
	return true
}

func openersOf(list []standing) []Opener {
	var openers []Opener
	for _, s := range list {
		openers = append(openers, s.Opener)
	}
	return openers
}

// callerOpened says whether the caller has a handle of its own, and whether one is for writing.
func (q *inquiry) callerOpened() (open, write bool) {
	for i := range q.Openers {
		if o := &q.Openers[i]; o.is(q.caller) {
			open, write = true, write || o.Write
		}
	}
	return open, write
}

// openedAlone says whether the image is open through the view, and by nobody but the caller.
func (q *inquiry) openedAlone() bool {
	for i := range q.Openers {
		if !q.Openers[i].is(q.caller) {
			return false
		}
	}
	return len(q.Openers) > 0
}

// viewUses turns openers into evidence.
func (q *inquiry) viewUses(vmms []standing) []Use {
	var uses []Use
	for _, o := range vmms {
		u := Use{PID: o.PID, Role: RoleUnknown, Writable: o.Write, Evidence: EvidenceView}
		uses = append(uses, q.g.named(q.ctx, q.Image, u))
	}
	return uses
}

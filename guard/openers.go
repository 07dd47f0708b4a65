package guard

// now looks at an opener's process as it is now: it may have executed another program since it opened the image, or
// have ended while a child that inherited the descriptor goes on.
func (g *Guard) now(o Opener) (p Process, alive bool) {
	p = g.Classify(o.PID, o.UID)
	return p, p.is(o.Process)
}

// openVMMs are the VMMs among the openers, but for the caller itself. One that has ended still counts: its handle is
// still there, so another process may have it, or its release is on the way.
func (q *inquiry) openVMMs() []Opener {
	var vmms []Opener
	for _, o := range q.Openers {
		if o.is(q.caller) {
			continue
		}
		if p, alive := q.g.now(o); o.Class == ClassVMM || alive && p.Class == ClassVMM {
			vmms = append(vmms, o)
		}
	}
	return vmms
}

// writers are the outsiders that have the image open for writing, but for the caller itself. Managers do not count:
// libvirtd keeps a disk open read-write to hold its lock on byte 1.
func (q *inquiry) writers() []Opener {
	var writers []Opener
	for _, o := range q.Openers {
		if !o.Write || o.is(q.caller) || o.Class != ClassOutsider {
			continue
		}
		if p, alive := q.g.now(o); alive && p.Class != ClassOutsider {
			continue // a shell that opened it with a redirection, and became a VMM
		}
		writers = append(writers, o)
	}
	return writers
}

// callerOpened says whether the caller has a handle of its own, and whether one is for writing.
func (q *inquiry) callerOpened() (open, write bool) {
	for _, o := range q.Openers {
		if o.is(q.caller) {
			open, write = true, write || o.Write
		}
	}
	return open, write
}

// viewUses turns openers into evidence.
func (q *inquiry) viewUses(vmms []Opener) []Use {
	var uses []Use
	for _, o := range vmms {
		u := Use{PID: o.PID, Role: RoleUnknown, Writable: o.Write, Evidence: EvidenceView}
		uses = append(uses, q.g.domains.named(q.ctx, q.Image, u))
	}
	return uses
}

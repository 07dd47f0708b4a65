// SPDX-License-Identifier: Apache-2.0

package guard

import "imgward/guard/procfs"

// liveOpener is an opener as it is now.
type liveOpener struct {
	Opener      // with the class that its process has now, or had at the open if that has ended
	gone   bool // its process has ended: the handle's release is on its way, or something else has the handle
}

// now looks at an opener's process. It may have executed another program since it opened the image, or have ended
// while something that got the descriptor from it goes on: a child, a loop device. One that was not visible when it
// opened the image is what it was then.
func (q *question) now(o Opener) liveOpener {
	if o.PID == 0 {
		o.Class = ClassOutsider
		return liveOpener{Opener: o}
	}
	p := identify(q.procs.Other, o.PID, o.UID)
	if !p.is(o.Process) {
		// A launcher that opened it for a VMM and ended: who has taken locks through the handle has it now.
		pid := o.locks().PID
		if p = identify(q.procs.Other, pid, o.UID); pid == 0 || p.Start == 0 {
			return liveOpener{Opener: o, gone: true}
		}
		o.Process = p
	}
	o.Comm, o.Exe, o.Class = p.Comm, p.Exe, p.Class
	if o.Class != ClassVMM && (q.status().runs(o.PID) || o.Class == ClassOutsider && q.procs.RunsVM(processOf(&o.Process))) {
		o.Class = ClassVMM
	}
	return liveOpener{Opener: o}
}

// others are the openers but for the caller, as they are now.
func (q *question) others() []liveOpener {
	if q.current == nil {
		q.current = make([]liveOpener, 0, len(q.Openers))
		for _, o := range q.Openers {
			if !o.is(q.caller) {
				q.current = append(q.current, q.now(o))
			}
		}
	}
	return q.current
}

// openVMMs are the VMMs among the openers that may have it open as an image. One that has ended still counts: its writes
// may not have.
func (q *question) openVMMs() []liveOpener {
	var vmms []liveOpener
	for _, s := range q.others() {
		if s.Class == ClassVMM && !s.Stream && !(s.Write && q.fileState().note) {
			vmms = append(vmms, s)
		}
	}
	return vmms
}

// writers are those that have the image open for writing through the view, but for the caller itself: outsiders, and
// managers that hold no lock through the handle. libvirtd keeps a disk open read-write to hold its lock on byte 1, as
// virtlockd does to hold its lease; vol-upload, vol-wipe and qemu-img write. A process that has ended and whose class nobody
// remembers (the daemon was restarted since) counts: it may have been losetup. One that started the caller does not: who
// has a VMM write into a file that it writes itself (an exporter, into its archive) means it.
func (q *question) writers() []liveOpener {
	var writers, managers []liveOpener
	for _, s := range q.others() {
		switch {
		case !s.Write:
		case s.Class == ClassOutsider && !s.gone && q.related(s.Process):
		case s.gone && s.Class != ClassManager && s.Class != ClassVMM && s.Class != ClassTrusted && q.passedOn():
		case s.Class == ClassOutsider, s.Class == "":
			writers = append(writers, s)
		case s.Class == ClassManager && !s.Locked && !s.Checked && !s.gone:
			managers = append(managers, s)
		}
	}
	return append(writers, managers...)
}

// related says whether the caller and another process have started one the other. A fork of the caller's ancestor which
// has executed nothing yet counts as that ancestor, if that may write as well: what the fork has it was given.
func (q *question) related(p Process) bool {
	if q.procs.FS.Descends(q.caller.PID, p.PID) || q.procs.FS.Descends(p.PID, q.caller.PID) {
		return true
	}
	status, err := q.procs.FS.Status(p.PID)
	if err != nil || p.Exe == "" {
		return false
	}
	parent, err := q.procs.FS.Exe(status.PPID)
	if err != nil || parent.Path != p.Exe || !q.procs.FS.Descends(q.caller.PID, status.PPID) {
		return false
	}
	writes := false
	q.procs.FS.Files(status.PPID, q.isImage, func(o *procfs.OpenFile) bool {
		writes = writes || o.Write
		return !writes
	})
	return writes
}

// passedOn says whether a VMM has a handle of the view that it did not open: a process that has ended passed it on.
func (q *question) passedOn() (is bool) {
	passed := func(o *procfs.OpenFile) bool { return q.isImage(o) && fileID(o) != q.Image }
	_, _ = q.procs.VMMFiles(q.ctx, passed, ServesView, func(o procfs.OpenFile) bool {
		is = is || o.Write
		return !is
	})
	return is
}

// allChecked says whether each write of these is judged, so that it can still be refused.
func allChecked(writers []liveOpener) bool {
	for _, w := range writers {
		if !w.Checked {
			return false
		}
	}
	return true
}

func openersOf(list []liveOpener) []Opener {
	var openers []Opener
	for _, s := range list {
		openers = append(openers, s.Opener)
	}
	return openers
}

// openedIdle says whether the caller opened the image for writing while nobody used it. A handle that was opened to touch
// the image, or by an exception, says nothing of the kind.
func (q *question) openedIdle() bool {
	for i := range q.Openers {
		if o := &q.Openers[i]; o.is(q.caller) && o.Write && !o.InUse {
			return true
		}
	}
	return false
}

// callerOpened says whether the caller has a handle of its own, and whether one is for writing.
func (q *question) callerOpened() (open, write bool) {
	for i := range q.Openers {
		if o := &q.Openers[i]; o.is(q.caller) {
			open, write = true, write || o.Write
		}
	}
	return open, write
}

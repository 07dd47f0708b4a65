// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"strings"

	"imgward/guard/procfs"
)

// Who holds an image is proved by what root has written (a domain's status file names the process, whatever it
// executes), or by the image itself: a VMM has it open for writing.

// holds says whether the caller may do as it likes with the image.
func (q *question) holds() bool {
	for _, u := range q.status().uses {
		if u.PID != 0 && u.PID == q.caller.PID || u.PID == 0 && u.emulator != "" && q.executes(u.emulator) {
			return true
		}
	}
	return q.caller.Class == ClassVMM && (q.writesItself() || q.wasPassed())
}

// executes says whether the caller's program is the one that a domain's file names as its emulator: libxl writes no pid.
func (q *question) executes(emulator string) bool {
	return strings.TrimSuffix(q.caller.Exe, " (deleted)") == emulator
}

// writesItself says whether the caller has opened the image for writing, and may write by that handle: one that is
// checked lets nobody through until a lock that excludes others has been taken through it.
func (q *question) writesItself() bool {
	for i := range q.Openers {
		if o := &q.Openers[i]; o.is(q.caller) && o.Write && (!o.Checked || o.locks().Exclusive) {
			return true
		}
	}
	return false
}

// wasPassed says whether the caller has the image open for writing without having opened it through the view: somebody
// passed it the descriptor, or it has it from before the view.
func (q *question) wasPassed() bool {
	if open, _ := q.callerOpened(); open {
		return false
	}
	return q.procs.FS.HasForWriting(q.caller.PID, q.isImage)
}

// stated is what libvirt's status files say about a request.
type stated struct {
	uses []Use
	vmms map[int]bool // those processes among the caller and the openers that are running domains'
}

func (s *stated) runs(pid int) bool { return s.vmms[pid] }

// status reads the status files. Being unable to read them in time counts as a use: closed for destroyers.
func (q *question) status() *stated {
	if q.stated == nil {
		s := &stated{vmms: make(map[int]bool)}
		pids := []int{q.caller.PID}
		for i := range q.Openers {
			pids = append(pids, q.Openers[i].PID)
		}
		if err := q.g.domains.about(q.ctx, q.asked(), pids, s); err != nil {
			s.uses = unread()
		}
		q.stated = s
	}
	return q.stated
}

// about fills in what the status files say, as they are now.
func (s *domains) about(ctx context.Context, a *asked, pids []int, to *stated) error {
	return s.locked(ctx, func() {
		to.uses = s.known(ctx, a)
		for _, pid := range pids {
			if d := s.byPID[pid]; pid != 0 && d != nil && s.running(d) {
				to.vmms[pid] = true
			}
		}
	})
}

func processOf(p *Process) procfs.Process {
	kind := procfs.Outsider
	if p.Class == ClassTrusted {
		kind = procfs.Trusted
	}
	return procfs.Process{PID: p.PID, Start: p.Start, UID: p.UID, Comm: p.Comm, Exe: p.Exe, Kind: kind}
}

// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"imgward/guard/policy"
	"imgward/guard/procfs"
)

// searchFor bounds the search through /proc, during which a VM waits for its disk.
const searchFor = 3 * time.Second

// writersBeside are the outsiders that may write to the image past every handle that the view knows: they opened it
// before the view was mounted, or closed the descriptor and kept a shared mapping. It is looked for where a VMM wants to
// open the image for writing, and the kernel says that somebody does; who cannot be found keeps no VM from starting.
func (q *question) writersBeside() []liveOpener {
	if !q.Op.opens() || q.vmmWrites() || !q.fileState().written {
		return nil
	}
	var found []liveOpener
	ctx, cancel := context.WithTimeout(q.ctx, searchFor)
	defer cancel()
	_ = q.procs.Writers(ctx, q.isImage, ServesView, func(p procfs.Process) bool {
		w := Process{PID: p.PID, Start: p.Start, UID: p.UID, Comm: p.Comm, Exe: p.Exe, Class: classOf(p.Kind)}
		if w.Class == ClassOutsider && !w.is(q.caller) && !q.related(w) && !q.status().runs(w.PID) && !q.procs.RunsVM(p) {
			found = append(found, liveOpener{Opener: Opener{Process: w, Write: true}})
		}
		return len(found) == 0
	})
	if len(found) == 0 {
		found = q.loops()
	}
	return found
}

// vmmWrites says whether a VMM has the image open for writing through the view: then this was asked when it opened it.
func (q *question) vmmWrites() bool {
	if _, write := q.callerOpened(); write && q.caller.Class == ClassVMM {
		return true
	}
	for _, o := range q.others() {
		if o.Write && o.Class == ClassVMM {
			return true
		}
	}
	return false
}

// isImage says whether a process has just this image, under the identity that the backing file system gives it or the
// one that the view shows.
func (q *question) isImage(o *procfs.OpenFile) bool {
	id := fileID(o)
	return id == q.Image || q.Shown != ID{} && id == q.Shown
}

// ServesView says whether a process serves a view, or keeps descriptors for one: what it has open, it has open for
// others. The name is enough, for nobody is let through because of it who would be refused otherwise.
func ServesView(exe string) bool {
	self, _ := os.Executable() // whatever the binary is called here
	return exeName(exe) == "imgward" || exeName(exe) == exeName(self)
}

// exeName is an executable's name, also when an upgrade has replaced the file.
func exeName(path string) string { return strings.TrimSuffix(filepath.Base(path), " (deleted)") }

// loops are the loop devices over the image that may be written.
func (q *question) loops() []liveOpener {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range files {
		device := filepath.Dir(filepath.Dir(file))
		path, err := os.ReadFile(file)
		if readOnly, _ := os.ReadFile(device + "/ro"); err != nil || strings.TrimSpace(string(readOnly)) == "1" {
			continue
		}
		if id, err := q.g.lookup(strings.TrimSuffix(string(path), "\n")); err == nil && id == q.Image {
			w := Process{Comm: "/dev/" + filepath.Base(device), Class: ClassOutsider}
			return []liveOpener{{Opener: Opener{Process: w, Write: true}}}
		}
	}
	return nil
}

// besideReason is the clause that names who keeps a VM from starting, without a handle of the view.
func besideReason(w Process) string {
	who := printable(w.Comm)
	if w.PID != 0 {
		who = fmt.Sprintf("%s (pid %d)", who, w.PID)
	}
	return fmt.Sprintf("%s may write to it, by a descriptor from before the view or a mapping; the VM can start when "+
		"that has ended", who)
}

// unlessWrittenBeside keeps a VMM from an image that somebody writes past the view.
func (q *question) unlessWrittenBeside() Verdict {
	if !q.forbids(OpOpenWrite) || q.governing().Writer == policy.Revoke {
		return Verdict{Allowed: true}
	}
	found := q.writersBeside()
	if len(found) == 0 {
		return Verdict{Allowed: true}
	}
	// Not worth waiting for: the kernel has been asked itself, and no release is on its way.
	return Verdict{Errno: syscall.EBUSY, Reason: besideReason(found[0].Process), Writers: openersOf(found)}
}

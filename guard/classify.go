// SPDX-License-Identifier: Apache-2.0

package guard

import "imgward/guard/procfs"

// Classify implements Checker. A caller that is not visible here is an outsider with pid 0.
func (g *Guard) Classify(tid int, uid uint32) Process {
	return identify(g.inForce.Load().procs.Recent, tid, uid)
}

// classify is Classify for a verdict: it notices that a process executes another program since it was last seen.
func (r *inForce) classify(tid int, uid uint32) Process {
	return identify(r.procs.Classify, tid, uid)
}

func identify(classify func(int) (procfs.Process, error), tid int, uid uint32) Process {
	if tid <= 0 {
		return Process{UID: uid, Class: ClassOutsider}
	}
	p, err := classify(tid)
	if err != nil {
		return Process{PID: tid, UID: uid, Class: ClassOutsider}
	}
	return Process{PID: p.PID, Start: p.Start, UID: uid, Comm: p.Comm, Exe: p.Exe, Class: classOf(p.Kind), Listed: p.Listed, Aligned: p.Aligned}
}

func classOf(k procfs.Kind) Class {
	switch k {
	case procfs.VMM:
		return ClassVMM
	case procfs.Manager:
		return ClassManager
	case procfs.Trusted:
		return ClassTrusted
	}
	return ClassOutsider
}

// is says whether two observations are of the same process.
func (p *Process) is(o Process) bool {
	return p.PID != 0 && p.Start != 0 && p.PID == o.PID && p.Start == o.Start
}

// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"imgward/guard/policy"
	"imgward/guard/qlock"
)

// Two writers never meet: who may have an image open for writing while a VMM wants to open it.
func TestTwoWriters(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	g := h.guard()
	vmm, second := h.run("vmm"), h.run("other-vmm")
	dd, manager, trusted := h.run("outsider"), h.run("manager"), h.run("trusted")
	ended, forgotten := h.run("outsider"), h.run("outsider")
	ended.end()
	forgotten.end()
	endedDD := ended.opener(true)
	endedDD.Class = ClassOutsider
	endedDD.Comm = "losetup"
	endedManager := ended.opener(true)
	endedManager.Class = ClassManager
	recycled := dd.opener(true)
	recycled.Start--
	recycled.Class, recycled.Comm = ClassOutsider, "cp"

	for name, tc := range map[string]struct {
		openers []Opener
		reason  string // of the refusal; empty: the VMM may open it
	}{
		"nobody":             {nil, ""},
		"dd":                 {[]Opener{dd.opener(true)}, "it is being written by outsider (pid "},
		"a reader":           {[]Opener{dd.opener(false)}, ""},
		"libvirtd's lock":    {[]Opener{locked(manager.opener(true))}, ""},
		"vol-upload":         {[]Opener{manager.opener(true)}, "it is being written by manager (pid "},
		"a trusted program":  {[]Opener{trusted.opener(true)}, ""},
		"another VMM":        {[]Opener{locked(second.opener(true))}, ""}, // QEMU's own locks settle that
		"one without locks":  {[]Opener{second.opener(true)}, "virtual machine process "},
		"itself":             {[]Opener{vmm.opener(true)}, ""},
		"a loop device":      {[]Opener{endedDD}, "through a handle of losetup (pid "},
		"somebody forgotten": {[]Opener{forgotten.opener(true)}, "through a handle of process "},
		"an ended libvirtd":  {[]Opener{endedManager}, ""},
		"a recycled pid":     {[]Opener{recycled}, "through a handle of cp (pid "},
		"another namespace":  {[]Opener{{Write: true}}, "it is being written by a process of another pid namespace"},
		"dd among others":    {[]Opener{vmm.opener(true), locked(manager.opener(true)), dd.opener(true)}, "it is being written by outsider"},
	} {
		v := g.Check(background, h.request(OpOpenWrite, img, vmm, tc.openers...))
		if v.Allowed != (tc.reason == "") || !strings.Contains(v.Reason, tc.reason) {
			t.Errorf("beside %s: allowed %v, %q, want %q", name, v.Allowed, v.Reason, tc.reason)
		}
		if !v.Allowed && (!v.MayPass || len(v.Writers)+len(v.Uses) != 1) {
			t.Errorf("beside %s it does not wait for the writers %+v", name, v.Writers)
		}
	}
	if v := g.Check(background, h.request(OpTruncate, img, vmm, dd.opener(true))); v.Allowed || len(v.Writers) != 1 {
		t.Errorf("O_TRUNC opens for writing as well: %+v", v)
	}
}

func locked(o Opener) Opener {
	o.Locked = true
	return o
}

// Who writes past the view keeps a VM out as well: by a descriptor from before it, by a mapping without one.
func TestWritersBesideTheView(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	g := h.guard()
	vmm := h.run("vmm")
	opens := func(openers ...Opener) Verdict {
		return g.Check(background, h.request(OpOpenWrite, img, vmm, openers...))
	}
	reader := h.run("outsider", h.open(img, os.O_RDONLY))
	if v := opens(); !v.Allowed {
		t.Errorf("beside a reader: %s", v.Reason)
	}
	reader.end()
	for name, program := range map[string]string{"outsider": "dd", "manager": "manager", "vmm": "vmm"} {
		f, err := os.OpenFile(img, os.O_RDWR, 0)
		h.must(err)
		writer := h.run(program, f)
		f.Close()
		v := opens()
		if v.Allowed != (name == "manager") {
			t.Errorf("beside %s: allowed %v, %q", name, v.Allowed, v.Reason)
		}
		if name == "outsider" && (v.MayPass || len(v.Writers) != 1 || v.Writers[0].PID != writer.PID) {
			t.Errorf("beside dd: %+v", v)
		}
		writer.end()
		if v := opens(); !v.Allowed {
			t.Errorf("%s has ended: %s", name, v.Reason)
		}
	}

	mapped := exec.Command("python3", "-c", `import mmap, os, sys
f = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(f, 4096)
os.close(f)
print("mapped", flush=True)
sys.stdin.read()`, img)
	in, err := mapped.StdinPipe()
	h.must(err)
	out, err := mapped.StdoutPipe()
	h.must(err)
	h.must(mapped.Start())
	_, err = out.Read(make([]byte, 7))
	h.must(err)
	if v := opens(); v.Allowed || !strings.Contains(v.Reason, "python3") {
		t.Errorf("beside a mapping: allowed %v, %q", v.Allowed, v.Reason)
	}
	if v := opens(vmm.opener(true)); !v.Allowed {
		t.Errorf("it was judged when the VMM opened it first: %s", v.Reason)
	}
	in.Close()
	mapped.Wait()
	if v := opens(); !v.Allowed {
		t.Errorf("the mapping has gone: %s", v.Reason)
	}
}

// A shell opened the image with a redirection, and became a VMM; a VMM opened it, and became something else.
func TestOpenersAreWhatTheyAreNow(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	g := h.guard()
	vmm, outsider := h.run("vmm"), h.run("outsider")

	wasShell := vmm.opener(true)
	wasShell.Class = ClassOutsider
	if v := g.Check(background, h.request(OpUnlink, img, outsider, wasShell)); v.Allowed {
		t.Error("the image of a VMM that was a shell is removed")
	} else if v.Uses[0].Evidence != EvidenceView || v.Uses[0].PID != vmm.PID {
		t.Errorf("the evidence is %+v", v.Uses)
	}
	wasVMM := outsider.opener(true)
	wasVMM.Class = ClassVMM
	if v := g.Check(background, h.request(OpUnlink, img, nil, wasVMM)); !v.Allowed {
		t.Errorf("a program that was a VMM protects the image: %s", v.Reason)
	}
	vmm.end()
	gone := vmm.opener(true)
	gone.Class = ClassVMM
	if v := g.Check(background, h.request(OpUnlink, img, outsider, gone)); v.Allowed || !v.MayPass {
		t.Errorf("a VMM's handle on its way out: %+v", v)
	}
	if v := g.Check(background, h.request(OpUnlink, img, outsider, vmm.opener(true))); !v.Allowed {
		t.Errorf("a handle of nobody known protects the image: %s", v.Reason)
	}
}

func TestOwnHandlesAreNoEvidence(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	g := h.guard()
	dd := h.run("outsider")
	own := h.lock(img).through(dd.opener(true))
	for _, op := range []Op{OpTruncate, OpFallocate, OpCopyInto, OpUnlink} {
		if v := g.Check(background, h.request(op, img, dd, own)); !v.Allowed {
			t.Errorf("%s beside the caller's own handle and locks: %s", op, v.Reason)
		}
	}
	if v := g.Check(background, h.request(OpTruncate, img, dd, own, h.run("vmm").opener(false))); v.Allowed {
		t.Error("a VMM has the image open as well")
	}
	h.lock(img)
	if v := g.Check(background, h.request(OpTruncate, img, dd, own)); v.Allowed {
		t.Error("the locks of a VM on another host are taken for its own")
	}
}

// Locks that are seen belong to the openers through whom they were taken, or to somebody beside the view. qemu-img commit
// reads a backing file, locked as a reader does, and opens it for writing then.
func TestWhoseLocks(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	g := h.guard()
	commit, reader := h.run("outsider"), h.run("outsider")
	lock := func(need qlock.Need) (through, *qlock.Lock) {
		f := h.open(img, os.O_RDWR)
		l, err := qlock.Take(f, need)
		h.must(err)
		return through{f}, l
	}
	for name, tc := range map[string]struct {
		locked *process // who has taken a reader's locks through its handle; nil: somebody beside the view
		want   string   // why commit may not write; empty: it may
	}{
		"its own":          {commit, ""},
		"another reader's": {reader, "process " + itoa(reader.PID) + " has it open"},
		"beside the view":  {nil, "on another host"},
	} {
		f, l := lock(qlock.Reading)
		openers := []Opener{commit.opener(false), reader.opener(false)} // sleep <base.qcow2
		for i, p := range []*process{commit, reader} {
			if tc.locked == p {
				openers[i] = f.through(openers[i])
			}
		}
		v := g.Check(background, h.request(OpOpenWrite, img, commit, openers...))
		if v.Allowed != (tc.want == "") || !strings.Contains(v.Reason, tc.want) {
			t.Errorf("%s: allowed %v, %q, want %q", name, v.Allowed, v.Reason, tc.want)
		}
		h.must(l.Release())
	}
}

// A VMM that does not hold the image writes when a lock which excludes others has come through its handle.
func TestLockThroughHandle(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	g := h.guard()
	holder, nbd := h.run("vmm"), h.run("other-vmm")
	h.domain("vm", holder.PID, img)
	handle := nbd.opener(true)
	handle.Checked = true
	users := []Opener{locked(holder.opener(true))}
	for _, op := range []Op{OpWrite, OpTruncate, OpFallocate} {
		if v := g.Check(background, h.request(op, img, nbd, append(users, handle)...)); v.Allowed {
			t.Errorf("%s without a lock", op)
		}
		if v := g.Check(background, h.request(op, img, nbd, append(users, h.lock(img, 100).through(handle))...)); v.Allowed {
			t.Errorf("%s with a reader's lock", op)
		}
		if v := g.Check(background, h.request(op, img, nbd, append(users, h.lock(img, 201).through(handle))...)); !v.Allowed {
			t.Errorf("%s with a lock that excludes others: %s", op, v.Reason)
		}
	}
}

func TestExecBetweenOpenAndCheck(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	g := h.guard()
	caller := h.run("vmm")
	if p := g.Classify(caller.PID, 0); p.Class != ClassVMM || p.Start != caller.Start {
		t.Fatalf("it is %+v", p)
	}
	// From now on the guard remembers it. The same pid with another program must not be taken for a VMM.
	caller.end()
	v := g.Check(background, h.request(OpTruncate, img, caller, caller.opener(true)))
	if v.Caller.Class != ClassOutsider {
		t.Errorf("a caller that has ended is %+v", v.Caller)
	}
}

func TestRevoke(t *testing.T) {
	h := newHost(t)
	p := *h.config.Policy
	p.Default.Writer = policy.Revoke
	h.config.Policy = &p
	img := h.image("vm.img")
	g := h.guard()
	vmm, dd := h.run("vmm"), h.run("outsider")

	for _, op := range []Op{OpOpenWrite, OpTruncate} {
		if v := g.Check(background, h.request(op, img, dd)); !v.Allowed || !v.CheckWrites {
			t.Errorf("%s: the outsider's writes could not be refused later: %+v", op, v)
		}
	}
	unchecked, checked := dd.opener(true), dd.opener(true)
	checked.Checked = true
	if v := g.Check(background, h.request(OpOpenWrite, img, vmm, unchecked)); v.Allowed {
		t.Error("the VM starts beside a writer that cannot be stopped")
	}
	if v := g.Check(background, h.request(OpOpenWrite, img, vmm, checked)); !v.Allowed || len(v.Writers) != 1 {
		t.Errorf("the VM does not start: %s", v.Reason)
	}
	if v := g.Check(background, h.request(OpWrite, img, dd, checked)); !v.Allowed {
		t.Errorf("the writer is stopped with no VM there: %s", v.Reason)
	}
	if v := g.Check(background, h.request(OpWrite, img, dd, checked, vmm.opener(true))); v.Allowed {
		t.Error("the writer goes on beside the VM")
	}
}

func BenchmarkHolderDiscards(b *testing.B) {
	h := newHost(b)
	img := h.image("vm.img")
	g := h.guard()
	vmm := h.run("vmm")
	h.domain("vm", vmm.PID, img)
	r := h.request(OpFallocate, img, vmm, vmm.opener(true))
	for b.Loop() {
		if v := g.Check(background, r); !v.Allowed {
			b.Fatal(v.Reason)
		}
	}
}

func TestSinceIsTold(t *testing.T) {
	w := liveOpener{Opener: Opener{Process: Process{PID: 7, Comm: "dd"}, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)}}
	if got := writtenReason(w); !strings.Contains(got, "dd (pid 7) since 03:04:05") {
		t.Error(got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// overlay makes a qcow2 image over a raw one.
func (h *host) overlay(name, base string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path).CombinedOutput()
	if err != nil {
		h.t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	return path
}

// qcow2 makes a domain's images qcow2 in its status file.
func (h *host) qcow2(name string, pid int, image string) {
	h.must(os.MkdirAll(h.status, 0o755))
	text := strings.Replace(string(statusFile(name, pid, image)), "type='raw'", "type='qcow2'", 1)
	path := filepath.Join(h.status, name+".xml")
	h.must(os.WriteFile(path+".new", []byte(text), 0o600))
	h.must(os.Rename(path+".new", path))
}

// libvirt does not list what it did not look at; the header does.
func TestChainIsEvidence(t *testing.T) {
	h := newHost(t)
	base, next := h.image("base.img"), h.image("next.img")
	top := h.overlay("top.qcow2", base)
	vmm, dd := h.run("vmm"), h.run("outsider")
	h.qcow2("vm", vmm.PID, top)
	g := h.guard()

	v := h.refuse(g, h.request(OpTruncate, base, dd))
	if u := v.Uses[0]; u.Evidence != EvidenceChain || u.Role != RoleBacking || u.Target != "vda" || u.Path != base {
		t.Errorf("the use is %+v", u)
	}
	if want := "it is in the backing chain of vda of running domain vm"; !strings.HasPrefix(v.Reason, want) {
		t.Errorf("%q, want %q", v.Reason, want)
	}
	if v := g.Check(background, h.request(OpFallocate, base, vmm)); !v.Allowed {
		t.Errorf("the VM itself commits into its base: %s", v.Reason)
	}

	// A commit or pull rewrites the header, and libvirt the status file after it.
	if out, err := exec.Command("qemu-img", "rebase", "-u", "-b", next, "-F", "raw", top).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.qcow2("vm", vmm.PID, top)
	if v := g.Check(background, h.request(OpTruncate, next, dd)); v.Allowed {
		t.Error("the new base is not protected")
	}
	if v := g.Check(background, h.request(OpTruncate, base, dd)); !v.Allowed {
		t.Errorf("the old base still is: %s", v.Reason)
	}

	// Without any event, the header is read again with the whole refresh of every half minute.
	if out, err := exec.Command("qemu-img", "rebase", "-u", "-b", base, "-F", "raw", top).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	g.refresh(background, true)
	if v := g.Check(background, h.request(OpTruncate, base, dd)); v.Allowed {
		t.Error("the base is not protected again")
	}
	if v := g.Check(background, h.request(OpTruncate, next, dd)); !v.Allowed {
		t.Errorf("the other one still is: %s", v.Reason)
	}
}

// A guest writes into its raw disk what it likes, also a header that names the host's files.
func TestRawIsNotLookedInto(t *testing.T) {
	h := newHost(t)
	base := h.image("base.img")
	top := h.overlay("top.img", base)
	h.domain("vm", h.run("vmm").PID, top) // declared raw
	if v := h.guard().Check(background, h.request(OpTruncate, base, h.run("outsider"))); !v.Allowed {
		t.Errorf("what a guest wrote is believed: %s", v.Reason)
	}
}

func TestChainOfADefinition(t *testing.T) {
	h := newHost(t)
	base := h.image("base.img")
	top := h.overlay("top.qcow2", base)
	h.must(os.MkdirAll(filepath.Join(h.dir, "etc"), 0o755))
	text := strings.Replace(string(definition("off", top)), "type='raw'", "type='qcow2'", 1)
	h.must(os.WriteFile(filepath.Join(h.dir, "etc/off.xml"), []byte(text), 0o600))
	g := h.governed("protect = 'defined'")
	if v := g.Check(background, h.request(OpUnlink, base, nil)); v.Allowed {
		t.Error("the backing file of a domain that is shut off is not protected")
	}
}

func TestHeaderThatCannotBeRead(t *testing.T) {
	h := newHost(t)
	base := h.image("base.img")
	top := h.overlay("top.qcow2", base)
	vmm := h.run("vmm")
	h.qcow2("vm", vmm.PID, top)
	g := h.guard()
	h.refuse(g, h.request(OpTruncate, base, nil))
	h.must(os.WriteFile(top, []byte("broken"), 0o600))
	g.refresh(background, true)
	if v := g.Check(background, h.request(OpTruncate, base, nil)); v.Allowed {
		t.Error("a header that cannot be read any more drops what it said")
	}
}

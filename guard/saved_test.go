// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// state writes a file with a domain's saved state.
func (h *host) state(path, domain string, images ...string) {
	h.t.Helper()
	text := append(definition(domain, images...), 0)
	b := []byte("LibvirtQemudSave")
	for _, v := range []uint32{2, uint32(len(text)), 1, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = append(append(b, make([]byte, 14*4)...), text...)
	h.must(os.MkdirAll(filepath.Dir(path), 0o755))
	h.must(os.WriteFile(path, b, 0o600))
}

func TestManagedStates(t *testing.T) {
	h := newHost(t)
	disk := h.image("vm.img")
	managed := filepath.Join(h.config.SaveDirs[0].Path, "vm.save")
	h.config.ViewRoot = filepath.Join(h.dir, "view") // or the directory would be part of the view
	h.state(managed, "vm", disk)
	g := h.guard()
	v := g.Check(background, h.request(OpTruncate, disk, nil))
	want := fmt.Sprintf("it is vda of saved domain vm (%s); start it, or virsh managedsave-remove vm", managed)
	if v.Allowed || v.Reason != want || v.Uses[0].Evidence != EvidenceSaved || v.Uses[0].State != managed {
		t.Errorf("got %+v\nwant the reason %s", v, want)
	}
	manager := h.run("manager")
	if v := g.Check(background, h.request(OpUnlink, disk, manager)); v.Allowed {
		t.Error("vol-delete of a saved domain's disk")
	}
	for _, op := range []Op{OpOpenWrite, OpWrite, OpUnlink} { // save-image-edit, managedsave-remove
		if v := g.Check(background, h.request(op, managed, manager)); !v.Allowed || v.CheckWrites {
			t.Errorf("libvirt's own %s of the state: %+v", op, v)
		}
	}
	if v := g.Check(background, h.request(OpUnlink, managed, nil)); v.Allowed || !strings.Contains(v.Reason, "the saved state of saved domain vm") {
		t.Errorf("rm of the state: %+v", v)
	}
	if len(g.InUse(background)[h.id(disk)]) != 1 || g.Who(background, &Request{Image: h.id(disk)})[0].State != managed {
		t.Error("it is not listed")
	}
	h.must(os.Remove(managed))
	if h.used(g, disk) {
		t.Error("started, and still saved")
	}
}

// A state in the view counts until its domain has run since, and then never again.
func TestStatesInTheView(t *testing.T) {
	h := newHost(t)
	disk, path := h.image("vm.img"), filepath.Join(h.dir, "sub/dir/vm.state")
	g := h.guard()
	if h.used(g, disk) {
		t.Fatal("in use by nobody")
	}
	vmm := h.run("vmm")
	h.domain("vm", vmm.PID, disk)
	settle()
	h.state(path, "vm", disk)
	h.must(os.Remove(filepath.Join(h.status, "vm.xml")))
	vmm.end()
	if v := g.Check(background, h.request(OpOpenWrite, path, h.run("manager"))); !v.Allowed { // as libvirt finishes it
		t.Fatal(v.Reason)
	}
	if !h.used(g, disk) || !h.used(g, path) {
		t.Error("a saved domain's disk, or its state, is not protected")
	}
	settle()
	restored := h.run("vmm")
	h.domain("vm", restored.PID, disk)
	if h.used(g, path) {
		t.Error("restored, and its state is still in use")
	}
	restored.end()
	if h.used(g, disk) || h.used(g, path) {
		t.Error("shut off, and in use by a state that is worth nothing any more")
	}
}

// A state that was there before, whose disk has been written to since, is worth nothing.
func TestStateOfAnotherDisk(t *testing.T) {
	h := newHost(t)
	good, changed := h.image("good.img"), h.image("changed.img")
	h.state(filepath.Join(h.dir, "good.state"), "good", good)
	h.state(filepath.Join(h.dir, "changed.state"), "changed", changed)
	later := time.Now().Add(time.Minute)
	h.must(os.Chtimes(changed, later, later))
	g := h.guard()
	await(t, "the search", func() bool { return h.used(g, good) })
	if h.used(g, changed) {
		t.Error("a disk that was written to since is in use by its old state")
	}
}

func TestSnapshotMemory(t *testing.T) {
	h := newHost(t)
	disk, memory := h.image("vm.img"), filepath.Join(h.dir, "memory")
	h.state(memory, "vm", disk)
	dir := filepath.Join(h.config.SnapshotDir, "vm")
	h.must(os.MkdirAll(dir, 0o755))
	h.must(os.WriteFile(filepath.Join(dir, "s.xml"), []byte("<domainsnapshot><name>s</name><memory snapshot='external' file='"+memory+"'/></domainsnapshot>"), 0o600))
	g := h.guard()
	v := g.Check(background, h.request(OpTruncate, memory, nil))
	if v.Allowed || !strings.Contains(v.Reason, "it is the memory of snapshot s of domain vm") {
		t.Errorf("the memory of a snapshot: %+v", v)
	}
	if h.used(g, disk) {
		t.Error("a snapshot's memory is taken for a saved domain's state")
	}
	if len(g.InUse(background)[h.id(memory)]) != 1 {
		t.Error("it is not listed")
	}
	await(t, "the search", func() bool {
		g.states.mu.Lock()
		defer g.states.mu.Unlock()
		return g.states.known[memory] != nil
	})
	h.must(os.Remove(filepath.Join(dir, "s.xml")))
	if h.used(g, memory) {
		t.Error("the snapshot is gone, and its memory still in use")
	}
}

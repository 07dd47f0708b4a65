package guard

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgward/guard/libvirt"
)

func (h *host) used(g *Guard, img string) bool {
	h.t.Helper()
	return !g.Check(background, h.request(OpTruncate, img, nil)).Allowed
}

func TestDomainsStartAndStop(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	g := h.guard()
	if h.used(g, img) { // no status directory yet
		t.Fatal("in use by nobody")
	}
	vmm := h.run("vmm")
	h.domain("vm", vmm.PID, img)
	if !h.used(g, img) {
		t.Error("a domain that started this moment is not seen")
	}
	vmm.end()
	if h.used(g, img) {
		t.Error("a status file whose VMM is dead counts")
	}
	st, err := g.Status(background)
	h.must(err)
	if st.Running != 0 || len(st.Stale) != 1 || st.Stale[0] != "vm" {
		t.Errorf("the status is %+v", st)
	}
	again := h.run("vmm")
	h.domain("vm", again.PID, img)
	if !h.used(g, img) {
		t.Error("started again, and not seen")
	}
	h.must(os.Remove(filepath.Join(h.status, "vm.xml")))
	if h.used(g, img) {
		t.Error("stopped, and still in use")
	}
	var changes []string
	for _, e := range g.Events().Recent() {
		if e.Type == EventDomain && e.Domain == "vm" {
			changes = append(changes, e.Change)
		}
	}
	if got := strings.Join(changes, " "); !strings.HasPrefix(got, "started") || !strings.HasSuffix(got, "stopped") {
		t.Errorf("the events are %s", got)
	}
}

// The pid of a stale status file may be anybody's by now.
func TestDomainOfARecycledPID(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	h.domain("vm", h.run("outsider").PID, img)
	old := time.Now().Add(-time.Hour)
	h.must(os.Chtimes(filepath.Join(h.status, "vm.xml"), old, old))
	if h.used(h.guard(), img) {
		t.Error("a process that began after the status file was written is taken for the domain's VMM")
	}
	other := h.image("other.img")
	h.domain("other", h.run("vmm").PID, other)
	h.must(os.Chtimes(filepath.Join(h.status, "other.xml"), old, old))
	if !h.used(h.guard(), other) {
		t.Error("a VMM is not believed because of what the wall clock says")
	}
}

func TestDomainWithoutPID(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	h.domain("xen", 0, img)
	if !h.used(h.guard(), img) {
		t.Error("a driver that names no process is not believed")
	}
}

// What is called crashed or shut off may have a VMM still (on_crash and on_poweroff "preserve"): the process tells.
func TestDomainStates(t *testing.T) {
	for _, state := range []string{"running", "paused", "crashed", "shutoff", "pmsuspended", "unheard-of"} {
		h := newHost(t)
		img := h.image("vm.img")
		vmm := h.run("vmm")
		text := bytes.Replace(statusFile("vm", vmm.PID, img), []byte("state='running'"), []byte("state='"+state+"'"), 1)
		h.must(os.MkdirAll(h.status, 0o755))
		h.must(os.WriteFile(filepath.Join(h.status, "vm.xml"), text, 0o600))
		g := h.guard()
		if !h.used(g, img) {
			t.Errorf("%s with a live VMM: not protected", state)
		}
		vmm.end()
		if h.used(g, img) {
			t.Errorf("%s, and the VMM has ended: still protected", state)
		}
	}
}

// A path that comes to mean another file: the VMM has the old one open, and may open the new one.
func TestPathsAreSticky(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	second := filepath.Join(h.dir, "hardlink.img")
	h.must(os.Link(img, second))
	h.domain("vm", h.run("vmm").PID, img)
	g := h.guard()
	if !h.used(g, second) {
		t.Fatal("another name of the same inode")
	}
	h.must(os.Remove(img))
	h.image("vm.img")
	g.look(background, true)
	if !h.used(g, img) || !h.used(g, second) {
		t.Error("the file behind the path, or the one that was behind it, is not protected")
	}
	h.domain("vm", h.run("vmm").PID, img) // another VMM opened what is there now
	if !h.used(g, img) || h.used(g, second) {
		t.Error("another start of the domain keeps inodes of the last one")
	}
}

func TestPathsAreFoundLater(t *testing.T) {
	h := newHost(t)
	path := filepath.Join(h.dir, "later.img")
	h.domain("vm", h.run("vmm").PID, path)
	g := h.guard()
	other := h.image("other.img")
	if h.used(g, other) {
		t.Fatal("in use by nobody")
	}
	h.image("later.img")
	if !h.used(g, path) {
		t.Error("an image that was made after the status file is not protected")
	}
}

func TestSymbolicLinksAndBlockDevices(t *testing.T) {
	h := newHost(t)
	img, link := h.image("vm.img"), filepath.Join(h.dir, "link.img")
	h.must(os.Symlink(img, link))
	h.domain("vm", h.run("vmm").PID, link)
	if !h.used(h.guard(), img) {
		t.Error("the image behind a symbolic link is not protected")
	}
}

// While nothing can be known, nothing is let through; and it is said.
func TestBlindness(t *testing.T) {
	h := newHost(t)
	img, other := h.image("vm.img"), h.image("other.img")
	h.domain("vm", h.run("vmm").PID, img)
	g := h.guard()
	if h.used(g, other) {
		t.Fatal("in use by nobody")
	}
	file := filepath.Join(h.status, "vm.xml")
	h.must(os.WriteFile(file+".new", []byte("<domstatus"), 0o600))
	h.must(os.Rename(file+".new", file))
	if !h.used(g, img) || h.used(g, other) {
		t.Error("a file that cannot be read any more does not keep what it said")
	}
	h.must(os.WriteFile(filepath.Join(h.status, "odd.xml"), nil, 0o600))
	v := g.Check(background, h.request(OpTruncate, other, nil))
	if v.Allowed || !strings.Contains(v.Reason, "the status file of domain odd cannot be read, so every image counts as in use") {
		t.Errorf("a domain of which nothing is known: %+v", v)
	}
	if uses := g.InUse(background); len(uses[ID{}]) != 1 {
		t.Errorf("the zero ID stands for %+v", uses[ID{}])
	}
	st, err := g.Status(background)
	h.must(err)
	if len(st.Problems) != 2 {
		t.Errorf("the problems are %+v", st.Problems)
	}
	n := 0
	for _, e := range g.Events().Recent() {
		if e.Type == EventUnreadable {
			n++
		}
	}
	if n != 2 || strings.Count(h.logged.String(), "cannot be read") < 2 {
		t.Errorf("%d events, log:\n%s", n, h.logged.String())
	}
}

// The images of a user's session name themselves, and protect nothing by that.
func TestSessions(t *testing.T) {
	h := newHost(t)
	session := filepath.Join(h.dir, "user/1000/libvirt/qemu/run")
	h.must(os.MkdirAll(session, 0o755))
	img, claimed := h.image("vm.img"), h.image("passwd")
	f := h.open(img, os.O_RDWR)
	vmm := h.run("vmm", f)
	f.Close()
	h.must(os.WriteFile(filepath.Join(session, "mine.xml"), statusFile("mine", vmm.PID, img, claimed), 0o600))
	h.config.StatusDirs = append(h.config.StatusDirs, libvirt.Dir{
		Path: filepath.Join(h.dir, "user/*/libvirt/qemu/run"), Driver: "qemu", Session: true,
	})
	g := h.guard()
	await(t, "the session's file", func() bool {
		v := g.Check(background, h.request(OpTruncate, img, nil))
		return strings.HasPrefix(v.Reason, "it is vda of running domain mine")
	})
	if h.used(g, claimed) {
		t.Error("an ordinary user protects what he likes by writing it down")
	}
}

// Every question sees what was there before it was asked, whatever goes on beside it.
func TestFreshAtDecisionTime(t *testing.T) {
	h := newHost(t)
	g := h.guard()
	vmm := h.run("vmm")
	var stop sync.WaitGroup
	ctx, cancel := context.WithCancel(background)
	noise := h.image("noise.img")
	stop.Go(func() {
		for ctx.Err() == nil {
			h.domain("noise", vmm.PID, noise)
		}
	})
	img := h.image("vm.img")
	for range 300 {
		h.domain("vm", vmm.PID, img)
		if !h.used(g, img) {
			t.Error("a domain that had started is not seen")
		}
		h.must(os.Remove(filepath.Join(h.status, "vm.xml")))
		if h.used(g, img) {
			t.Error("a domain that had stopped is still seen")
		}
	}
	cancel()
	stop.Wait()
}

// slowHost never answers for some paths: a dead NFS server.
type slowHost struct {
	HostDirect
	hang chan struct{}
}

func (s slowHost) Lookup(path string) (ID, error) {
	if strings.HasPrefix(path, "/nfs/") {
		<-s.hang
		return ID{}, &fs.PathError{Op: "stat", Path: path, Err: errors.New("server does not answer")}
	}
	return s.HostDirect.Lookup(path)
}

func TestEvidenceThatDoesNotCome(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	hang := make(chan struct{})
	h.config.Host = slowHost{hang: hang}
	vmm := h.run("vmm")
	h.domain("vm", vmm.PID, "/nfs/disk.img")
	g := h.guard()
	defer close(hang)
	ctx, cancel := context.WithTimeout(background, 50*time.Millisecond)
	defer cancel()
	v := g.Check(ctx, h.request(OpTruncate, img, nil))
	if v.Allowed || !strings.Contains(v.Reason, "cannot be read in time") {
		t.Errorf("a destroyer without evidence: %+v", v)
	}
	if uses := g.InUse(ctx); len(uses[ID{}]) != 1 {
		t.Errorf("a directory may be renamed: in use are %+v", uses)
	}
	if v := g.Check(background, h.request(OpOpenWrite, img, vmm)); !v.Allowed {
		t.Errorf("a VM's start waits for the evidence: %s", v.Reason)
	}
}

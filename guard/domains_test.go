// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgward/guard/libvirt"
	"imgward/test/need"
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
	g.refresh(background, true)
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
	h.config.Brief = true // a command asks once
	if uses := h.guard().Who(background, &Request{Image: h.id(img)}); len(uses) != 1 || uses[0].Domain != "mine" {
		t.Errorf("the first answer of a Brief guard is %+v, want the domain's name", uses)
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

// slowHost does not answer for some paths while it is held.
type slowHost struct {
	HostDirect
	answers sync.Mutex
}

func (s *slowHost) Lookup(path string) (ID, error) {
	if rest, ok := strings.CutPrefix(path, "/nfs"); ok {
		s.answers.Lock()
		s.answers.Unlock() //lint:ignore SA2001 it only waits
		path = rest
	}
	return s.HostDirect.Lookup(path)
}

// A path that does not answer is set aside: it is named, and keeps neither a destroyer nor a VM from anything.
func TestPathsThatDoNotAnswer(t *testing.T) {
	h := newHost(t)
	free, used, late := h.image("free.img"), h.image("used.img"), h.image("late.img")
	slow := &slowHost{}
	slow.answers.Lock()
	h.config.Host = slow
	vmm := h.run("vmm")
	h.domain("vm", vmm.PID, "/nfs"+late, "/nfs/2", "/nfs/3", used)
	g := h.guard()
	if h.used(g, free) {
		t.Error("one dead path stands in the way of all destroyers")
	}
	if !h.used(g, used) {
		t.Error("an image beside a dead path is not protected")
	}
	st, err := g.Status(background)
	h.must(err)
	if len(st.Pending) != 3 || st.Pending[0].Domain != "vm" || !strings.HasPrefix(st.Pending[0].Path, "/nfs") {
		t.Errorf("pending are %+v", st.Pending)
	}
	if v := g.Check(background, h.request(OpOpenWrite, free, vmm)); !v.Allowed {
		t.Errorf("a VM's start: %s", v.Reason)
	}
	slow.answers.Unlock()
	await(t, "the answer", func() bool { return h.used(g, late) })
	st, err = g.Status(background)
	h.must(err)
	if len(st.Pending) != 0 {
		t.Errorf("it has answered, and pending are %+v", st.Pending)
	}
}

// What a path led to last holds while it does not answer; and a path that the caller himself used is believed.
func TestPendingPathsProtectWhatIsKnown(t *testing.T) {
	h := newHost(t)
	disk := h.image("vm.img")
	slow := &slowHost{}
	h.config.Host, h.config.ViewRoot = slow, "/nfs"
	h.domain("vm", h.run("vmm").PID, "/nfs"+disk)
	g := h.guard()
	if !h.used(g, disk) {
		t.Fatal("not protected while it answers")
	}
	slow.answers.Lock()
	defer slow.answers.Unlock()
	g.refresh(background, true)
	v := g.Check(background, h.request(OpTruncate, disk, nil))
	if v.Allowed || !strings.Contains(v.Reason, "or was when /nfs"+disk+" answered last") {
		t.Errorf("it does not answer any more: %+v", v)
	}

	h.domain("other", h.run("vmm").PID, "/nfs/of-the-caller.img")
	r := h.request(OpTruncate, h.image("of-the-caller.img"), nil)
	if v := g.Check(background, r); v.Allowed {
		t.Error("the very path that a domain names is not protected while it does not answer")
	}
}

// A question that nobody waits for any more is answered for those who are left.
func TestEvidenceThatDoesNotComeInTime(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	slow := &slowHost{}
	slow.answers.Lock()
	defer slow.answers.Unlock()
	h.config.Host = slow
	h.domain("vm", h.run("vmm").PID, "/nfs/disk.img")
	g := h.guard()
	ctx, cancel := context.WithCancel(background)
	cancel()
	v := g.Check(ctx, h.request(OpTruncate, img, nil))
	if v.Allowed || !strings.Contains(v.Reason, "cannot be read in time") {
		t.Errorf("a destroyer without evidence: %+v", v)
	}
	if uses := g.InUse(ctx); len(uses[ID{}]) != 1 {
		t.Errorf("a directory may be renamed: in use are %+v", uses)
	}
}

// Of a status file that cannot be read, the pid file beside it tells whether its domain runs, and as which process.
func TestUnreadableWithPIDFile(t *testing.T) {
	h := newHost(t)
	open, closed := h.image("open.img"), h.image("closed.img")
	vmm := h.run("outsider", h.open(open, os.O_RDWR)) // whatever its executable is
	h.must(os.MkdirAll(h.status, 0o755))
	h.must(os.WriteFile(filepath.Join(h.status, "odd.pid"), fmt.Appendf(nil, "%d\n", vmm.PID), 0o600))
	h.must(os.WriteFile(filepath.Join(h.status, "odd.xml"), nil, 0o600))
	g := h.guard()
	v := g.Check(background, h.request(OpTruncate, open, nil))
	if v.Allowed || !strings.Contains(v.Reason, filepath.Join(h.status, "odd.xml")) {
		t.Errorf("what its process has open: %+v", v)
	}
	if h.used(g, closed) {
		t.Error("an image that its process has not open is not free")
	}
	if uses := g.InUse(background); len(uses[ID{}]) != 0 || len(uses[h.id(open)]) != 1 {
		t.Errorf("in use are %+v", uses)
	}
	vmm.end()
	if h.used(g, open) {
		t.Error("a domain whose process is gone counts")
	}
}

// A file that was made after a status file was written is no disk of its domain.
func TestUnreadableSparesNewFiles(t *testing.T) {
	h := newHost(t)
	old := h.image("old.img")
	h.must(os.MkdirAll(h.status, 0o755))
	h.must(os.WriteFile(filepath.Join(h.status, "odd.xml"), nil, 0o600))
	g := h.guard()
	settle()
	fresh := h.image("fresh.img")
	if f := h.open(fresh, os.O_RDONLY); Born(int(f.Fd())).IsZero() {
		need.Skip(t, "TMPDIR is on a file system that keeps no birth times (statx(2)), as ext4, XFS and btrfs do")
	}
	if h.used(g, fresh) {
		t.Error("a new file counts as in use")
	}
	if !h.used(g, old) {
		t.Error("a file from before does not")
	}
	h.must(os.Chtimes(filepath.Join(h.status, "odd.xml"), time.Unix(1, 0), time.Unix(1, 0)))
	if !h.used(g, fresh) {
		t.Error("a clock that stood before the boot is believed")
	}
}

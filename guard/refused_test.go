// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"imgward/guard/internal/pty"
	"imgward/test/need"
)

// refuse asks and reports, as the view does.
func (h *host) refuse(g *Guard, r *Request) Verdict {
	h.t.Helper()
	v := g.Check(background, r)
	if v.Allowed && !v.Audit {
		h.t.Fatalf("%s is allowed", r.Op)
	}
	g.Refused(r, &v)
	return v
}

// The accident: dd of=vm-disk2.img for a disk 3.
func TestRefusedTellsTheTerminal(t *testing.T) {
	need.Have(t, need.Terminals)
	h := newHost(t)
	img := h.image("vm-disk2.img")
	vmm := h.run("vmm")
	h.domain("rhevm", vmm.PID, h.image("vm-disk1.img"), img)
	g := h.guard()

	master, tty, err := pty.Open()
	h.must(err)
	defer master.Close()
	cmd := exec.Command(h.program("outsider"))
	pty.Control(cmd, tty)
	h.must(cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	tty.Close()

	r := h.request(OpTruncate, img, nil)
	r.TID = cmd.Process.Pid
	h.refuse(g, r)
	timer := time.AfterFunc(60*time.Second, func() { master.Close() })
	defer timer.Stop()
	var shown []byte
	for buf := make([]byte, 4096); !bytes.Contains(shown, []byte("\r")); {
		n, err := master.Read(buf)
		h.must(err)
		shown = append(shown, buf[:n]...)
	}
	want := "imgward: refused: outsider (pid " + itoa(cmd.Process.Pid) + ") would truncate vm-disk2.img: it is vdb of " +
		"running domain rhevm (pid " + itoa(vmm.PID) + "). Next free name: vm-disk3.img. To do it anyway: imgward allow " +
		"--op truncate,write --for 5m --reason WHY " + img + "\r"
	if got := string(shown); !strings.HasPrefix(got, want) {
		t.Errorf("the terminal shows\n%q, want\n%q", got, want)
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestRefusedIsPublishedCountedAndLogged(t *testing.T) {
	h := newHost(t)
	img := h.image("sub/vm.img")
	vmm, dd := h.run("vmm"), h.run("outsider")
	h.domain("rhevm", vmm.PID, img)
	g := h.guard()
	_, sub := g.Events().Subscribe(0)
	defer sub.Close()

	h.refuse(g, h.request(OpUnlink, img, dd))
	var e Event
	for e = range sub.C {
		if e.Type == EventRefusal {
			break
		}
	}
	text, err := json.Marshal(e)
	h.must(err)
	var got map[string]any
	h.must(json.Unmarshal(text, &got))
	if _, err := time.Parse(time.RFC3339Nano, got["time"].(string)); err != nil {
		t.Error(err)
	}
	delete(got, "time")
	want := map[string]any{
		"type": "refusal", "op": "unlink", "path": "sub/vm.img", "pid": float64(dd.PID), "comm": "outsider",
		"exe": h.program("outsider"), "uid": float64(0), "class": "outsider", "domain": "rhevm", "uuid": "0-rhevm",
		"target": "vda", "vmm_pid": float64(vmm.PID), "errno": "EBUSY", "id": float64(1),
		"reason": "it is vda of running domain rhevm (pid " + itoa(vmm.PID) + ")", "view": h.dir,
		"message": "imgward: refused: outsider (pid " + itoa(dd.PID) + ") would remove vm.img: it is vda of running domain rhevm (pid " + itoa(vmm.PID) +
			"). To do it anyway: imgward allow --op unlink --for 5m --reason WHY " + img,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	c := g.Counters()
	if n := c.Refusals[RefusalKey{Op: OpUnlink, Domain: "rhevm", Class: ClassOutsider}]; n != 1 || c.Denied != 1 {
		t.Errorf("counted %+v", c)
	}
	await(t, "a line in the log", func() bool {
		return strings.Contains(h.logged.String(), "message_id="+RefusalMessageID+" op=unlink path=sub/vm.img")
	})
}

func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("%s never came", what)
}

// A loop of refused commands is told once; the rest is counted.
func TestRefusedDoesNotFlood(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	h.domain("vm", h.run("vmm").PID, img)
	dd := h.run("outsider")
	g := h.guard()
	r := h.request(OpTruncate, img, dd)
	v := g.Check(background, r)
	const many = 10000
	began := time.Now()
	for range many {
		g.Refused(r, &v)
	}
	for i := range many { // as many processes, each refused once
		v.Caller.PID = 1<<24 + i
		g.Refused(r, &v)
	}
	n := 0
	for _, e := range g.Events().Recent() {
		if e.PID == dd.PID {
			n++
		}
	}
	if total := len(g.Events().Recent()); n > 1 || total > History {
		t.Errorf("%d events of one process, %d in all", n, total)
	}
	c := g.Counters()
	if got := c.Refusals[RefusalKey{Op: OpTruncate, Domain: "vm", Class: ClassOutsider}]; got != 2*many {
		t.Errorf("%d are counted, want %d", got, 2*many)
	}
	if len(g.limiter.told) > maxTold {
		t.Errorf("%d topics are remembered", len(g.limiter.told))
	}
	g.Close()
	most := logsAtOnce + int(logsPerSecond*time.Since(began).Seconds()) + 1
	if lines := strings.Count(h.logged.String(), "msg=refused"); lines > most {
		t.Errorf("%d lines are logged, want %d at most", lines, most)
	}
}

func TestLimiterTellsHowManyWereLeftOut(t *testing.T) {
	var l limiter
	topic, now := topic{pid: 1, op: OpTruncate}, time.Now()
	if _, ok := l.admit(topic, now); !ok {
		t.Error("the first is not told")
	}
	for range 7 {
		if _, ok := l.admit(topic, now.Add(quiet-1)); ok {
			t.Error("it is told again too soon")
		}
	}
	if n, ok := l.admit(topic, now.Add(quiet)); !ok || n != 7 {
		t.Errorf("after a while: %v, %d left out", ok, n)
	}
}

func TestLine(t *testing.T) {
	taken := map[string]bool{"vm-disk3.img": true, "vm-disk4.img": true}
	exists := func(name string) bool { return taken[name] }
	for _, tc := range []struct {
		x    explanation
		want string
	}{
		{explanation{
			&Request{Op: OpOpenWrite, Exists: exists}, &Verdict{Caller: Process{PID: 7, Comm: "dd"}, Reason: "it is busy", Message: "Ask ops."},
			"vm-disk2.img", "/var/lib/images", nil},
			"imgward: refused: dd (pid 7) would write to vm-disk2.img: it is busy. Ask ops. Next free name: vm-disk5.img. " +
				"To do it anyway: imgward allow --op truncate,write --for 5m --reason WHY /var/lib/images/vm-disk2.img"},
		{explanation{
			&Request{Op: OpUnlink, Exists: exists}, &Verdict{Caller: Process{PID: 7, Comm: "rm"}, Reason: "it is busy"}, "a b/it's.img", "/v", nil},
			`imgward: refused: rm (pid 7) would remove it's.img: it is busy. To do it anyway: imgward allow --op unlink ` +
				`--for 5m --reason WHY '/v/a b/it'\''s.img'`},
		{explanation{
			&Request{Op: OpOpenWrite, Exists: exists}, &Verdict{Caller: Process{PID: 7, Comm: "qemu", Class: ClassVMM}, Reason: "it is being written"}, "a.img", "/v", nil},
			`imgward: refused: qemu (pid 7) would open a.img for writing: it is being written.`},
		{explanation{&Request{Op: OpOpenWrite, Exists: exists}, &Verdict{Caller: Process{PID: 7, Comm: "shred"}, Reason: "r"}, "a1.img", "/v", nil},
			`imgward: refused: shred (pid 7) would write to a1.img: r. To do it anyway: imgward allow --op truncate,write ` +
				`--for 5m --reason WHY /v/a1.img`},
		{explanation{
			&Request{Op: OpOpenWrite, Exists: exists},
			&Verdict{Caller: Process{PID: 7, Comm: "qemu-img"}, Reason: "r", Uses: []Use{{Domain: "db", Target: "vdb", Role: RoleDisk}}}, "a1.img", "/v",
			func() []string { return []string{"qemu-img", "resize", "a1.img", "+1G"} }},
			`imgward: refused: qemu-img (pid 7) would write to a1.img: r. To resize it while the VM runs: virsh blockresize db vdb SIZE. ` +
				`To do it anyway: imgward allow --op truncate,write --for 5m --reason WHY /v/a1.img`},
		{explanation{&Request{Op: OpFallocate}, &Verdict{Caller: Process{PID: 7, Comm: "x"}, Reason: "r"}, "", "/v", nil},
			`imgward: refused: x (pid 7) would change the allocation of an image: r. To do it anyway: imgward allow --op truncate,write ` +
				`--for 5m --reason WHY PATH`},
	} {
		if got := tc.x.line(); got != tc.want {
			t.Errorf("%s\nwant\n%s", got, tc.want)
		}
	}
}

// What anybody can choose (names of files, processes, domains) must not reach a terminal as it is.
func TestLineIsPrintable(t *testing.T) {
	evil := "a\x1b]0;x\x07\n\r\u202e\x9b31m\xff\\"
	r := &Request{Op: OpTruncate, Exists: func(string) bool { return false }}
	use := Use{Domain: evil, Target: evil, Role: RoleDisk, PID: 1, Evidence: EvidenceLibvirt, Path: evil}
	for _, u := range []Use{use, {Domain: evil, Role: RoleUnknown, Evidence: EvidenceLibvirt, Path: evil},
		{Domain: evil, Role: RoleUnknown, Evidence: EvidencePolicy, Path: evil}, {Domain: evil, Role: RoleBacking, Target: evil, Evidence: EvidenceChain}} {
		v := &Verdict{Caller: Process{PID: 1, Comm: evil}, Reason: usedReason(u), Message: evil}
		line := (&explanation{r, v, evil + "/" + evil, "/v", nil}).line()
		if bad := strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x202e }); bad >= 0 {
			t.Errorf("%q", line)
		}
		if !strings.Contains(line, `a\x1b]0;x\a\n\r\u202e\x9b31m\xff\\`) {
			t.Errorf("the name cannot be recognised in %s", line)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[31m\n")
	f.Fuzz(func(t *testing.T, name string) {
		p := printable(name)
		if strings.IndexFunc(p, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) >= 0 || len(p) > 6*maxName+6 {
			t.Errorf("%q becomes %q", name, p)
		}
	})
}

func TestEvents(t *testing.T) {
	var s Events
	for i := range History + 10 {
		s.Publish(&Event{Type: EventRefusal, PID: i})
	}
	recent, sub := s.Subscribe(0)
	if len(recent) != History || recent[0].PID != 10 || recent[History-1].PID != History+9 {
		t.Errorf("the history has %d events from %d to %d", len(recent), recent[0].PID, recent[len(recent)-1].PID)
	}
	for i := range backlog + 5 {
		s.Publish(&Event{PID: i})
	}
	if e := <-sub.C; e.PID != 0 || e.Time.IsZero() {
		t.Errorf("the first event is %+v", e)
	}
	if sub.Lost() != 5 {
		t.Errorf("%d are lost, want 5", sub.Lost())
	}
	sub.Close()
	sub.Close()
	s.Publish(&Event{})
	if len(s.subs) != 0 {
		t.Error("a closed subscription is kept")
	}
}

func TestErrnoOfTheVerdict(t *testing.T) {
	h := newHost(t)
	p := *h.config.Policy
	p.Default.Errno = syscall.EPERM
	h.config.Policy = &p
	img := h.image("vm.img")
	h.domain("vm", h.run("vmm").PID, img)
	if v := h.refuse(h.guard(), h.request(OpTruncate, img, h.run("outsider"))); v.Errno != syscall.EPERM {
		t.Errorf("errno %v", v.Errno)
	}
}

// TestArgumentsThatDoNotAnswer: a process may have its command line in memory that nobody fills (userfaultfd(2), a file of a file
// system of its own). Whoever explains does not wait for that.
func TestArgumentsThatDoNotAnswer(t *testing.T) {
	h := newHost(t)
	h.config.ProcRoot = h.dir
	cmdline := filepath.Join(h.dir, "7", "cmdline")
	h.must(os.MkdirAll(filepath.Dir(cmdline), 0o755))
	h.must(unix.Mkfifo(cmdline, 0o600))
	g := h.guard()
	explained := make(chan string)
	go func() {
		x := g.explanation(&Request{Op: OpTruncate}, &Verdict{Caller: Process{PID: 7, Comm: "qemu-img"}}, "vm.img")
		explained <- x.line()
	}()
	select {
	case line := <-explained:
		if !strings.Contains(line, "qemu-img (pid 7) would truncate vm.img") {
			t.Error(line)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits for the arguments")
	}
	f, err := os.OpenFile(cmdline, os.O_RDWR, 0) // for who waits there
	h.must(err)
	f.Close()
}

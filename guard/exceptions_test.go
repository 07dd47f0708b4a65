package guard

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imgward/guard/policy"
)

// excepting is a guard over a running domain's image.
func excepting(t *testing.T) (h *host, g *Guard, img string, dd *process) {
	h = newHost(t)
	img = h.image("vm.img")
	h.domain("vm", h.run("vmm").PID, img)
	return h, h.guard(), img, h.run("outsider")
}

func (h *host) exception(img string, ops policy.Ops, uses int) Exception {
	return Exception{
		Image: h.id(img), Path: img, Ops: ops, Uses: uses, Expires: time.Now().Add(time.Minute), Reason: "wiping for the test",
	}
}

func TestExceptionOnce(t *testing.T) {
	h, g, img, dd := excepting(t)
	r := h.request(OpTruncate, img, dd)
	if v := g.Check(background, r); v.Allowed {
		t.Fatal("allowed without any exception")
	}
	e, err := g.Allow(h.exception(img, policy.Truncate, 1), 0)
	h.must(err)
	for range 3 { // asking does not use it up
		if v := g.Check(background, r); !v.Allowed || v.Spend == nil || len(v.Uses) == 0 {
			t.Fatalf("with an exception: %+v", v)
		}
	}
	v1, v2 := g.Check(background, r), g.Check(background, r)
	if !v1.Spend() {
		t.Error("the first one gets nothing")
	}
	if v2.Spend() {
		t.Error("one exception was used twice")
	}
	if v := g.Check(background, r); v.Allowed {
		t.Error("it was used up, and still")
	}
	var types []string
	for _, ev := range g.Events().Recent() {
		if ev.Exception != nil && ev.Exception.ID == e.ID {
			types = append(types, string(ev.Type)+" "+ev.Change)
		}
	}
	want := []string{"exception ", "exception-used truncate by outsider (pid " + itoa(dd.PID) + ")", "exception-gone used up"}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(h.logged.String(), "wiping for the test") {
		t.Error("the reason is not in the log")
	}
}

func TestExceptionIsForNothingElse(t *testing.T) {
	h, g, img, dd := excepting(t)
	other := h.image("other.img")
	h.domain("other", h.run("vmm").PID, other)
	_, err := g.Allow(h.exception(img, policy.Truncate|policy.Write, 0), 0)
	h.must(err)
	for _, tc := range []struct {
		op   Op
		img  string
		uid  uint32
		want bool
	}{
		{OpTruncate, img, 0, true}, {OpFallocate, img, 0, true}, {OpOpenWrite, img, 0, true}, {OpCopyInto, img, 0, true},
		{OpUnlink, img, 0, false}, {OpReplace, img, 0, false}, {OpTruncate, other, 0, false}, {OpTruncate, img, 1000, false},
	} {
		r := h.request(tc.op, tc.img, dd)
		r.UID = tc.uid
		if v := g.Check(background, r); v.Allowed != tc.want {
			t.Errorf("%s of %s by uid %d: allowed %v", tc.op, filepath.Base(tc.img), tc.uid, v.Allowed)
		} else if v.Allowed && !v.Spend() {
			t.Errorf("%s: it holds for a time, and is used up", tc.op)
		}
	}
}

func TestExceptionOfAnEarlierFile(t *testing.T) {
	h, g, img, dd := excepting(t)
	f, err := os.Open(img)
	h.must(err)
	defer f.Close()
	born := Born(int(f.Fd()))
	if born.IsZero() {
		t.Skip("TMPDIR is on a file system without STATX_BTIME (statx(2)), which ext4, XFS and btrfs have")
	}
	r := h.request(OpTruncate, img, dd)
	for _, tc := range []struct {
		born time.Time
		want bool
	}{{born.Add(-time.Nanosecond), false}, {born, true}} {
		e := h.exception(img, policy.Truncate, 0)
		e.Born = tc.born
		_, err := g.Allow(e, 0)
		h.must(err)
		if v := g.Check(background, r); v.Allowed != tc.want {
			t.Errorf("for the file born %v, by a file born %v: allowed %v", tc.born, born, v.Allowed)
		}
	}
	r.Open = nil
	if v := g.Check(background, r); v.Allowed {
		t.Error("nobody can tell which file it is, and yet")
	}
}

func TestExceptionExpires(t *testing.T) {
	h, g, img, dd := excepting(t)
	e := h.exception(img, policy.Truncate, 0)
	e.Expires = time.Now().Add(50 * time.Millisecond)
	_, err := g.Allow(e, 0)
	h.must(err)
	r := h.request(OpTruncate, img, dd)
	v := g.Check(background, r)
	await(t, "its end", func() bool { return len(g.Exceptions()) == 0 })
	if v.Spend != nil && v.Spend() {
		t.Error("it was spent after its time")
	}
	if v := g.Check(background, r); v.Allowed {
		t.Error("it holds after its time")
	}
}

func TestExceptionOfAnotherLogin(t *testing.T) {
	h, g, img, dd := excepting(t)
	e := h.exception(img, policy.Truncate, 0)
	login := uint32(4711)
	e.LoginUID = &login
	_, err := g.Allow(e, 0)
	h.must(err)
	if v := g.Check(background, h.request(OpTruncate, img, dd)); v.Allowed {
		t.Error("it holds for another administrator's session")
	}
}

func TestExceptionNotesWhoAsked(t *testing.T) {
	h, g, img, _ := excepting(t)
	cmd := exec.Command("sh", "-c", "echo 4711 > /proc/self/loginuid && echo ok; exec cat")
	in, err := cmd.StdinPipe()
	h.must(err)
	out, err := cmd.StdoutPipe()
	h.must(err)
	h.must(cmd.Start())
	defer func() { in.Close(); cmd.Process.Kill(); cmd.Wait() }()
	buf := make([]byte, 10)
	if n, _ := out.Read(buf); string(buf[:n]) != "ok\n" {
		t.Skip("/proc/self/loginuid cannot be set: it takes CONFIG_AUDIT and CAP_AUDIT_CONTROL in the first user namespace")
	}
	e, err := g.Allow(h.exception(img, policy.Truncate, 0), cmd.Process.Pid)
	h.must(err)
	if e.LoginUID == nil || *e.LoginUID != 4711 {
		t.Fatalf("the exception is %+v", e)
	}
	r := h.request(OpTruncate, img, nil)
	r.TID = cmd.Process.Pid
	if v := g.Check(background, r); !v.Allowed {
		t.Error("it does not hold for the session that asked")
	}
}

func TestExceptionsSurviveARestart(t *testing.T) {
	h, _, img, dd := excepting(t)
	var saved []byte
	h.config.SaveExceptions = func(list []Exception) (err error) {
		saved, err = json.Marshal(list)
		return err
	}
	g := h.guard()
	for _, uses := range []int{0, 2} {
		_, err := g.Allow(h.exception(img, policy.Truncate, uses), 0)
		h.must(err)
	}
	if !g.Revoke(1) || g.Revoke(1) {
		t.Error("revoking does not work once, and only once")
	}
	r := h.request(OpTruncate, img, dd)
	v := g.Check(background, r)
	if !v.Spend() {
		t.Fatal("it is not there")
	}
	want := g.Exceptions()
	g.Close()

	h.must(json.Unmarshal(saved, &h.config.Exceptions))
	successor := h.guard()
	if diff := cmp.Diff(want, successor.Exceptions()); diff != "" {
		t.Error(diff)
	}
	v = successor.Check(background, r)
	if !v.Allowed || !v.Spend() {
		t.Error("its second use is lost")
	}
	if v := successor.Check(background, r); v.Allowed {
		t.Error("it can be used three times")
	}
	if e, err := successor.Allow(h.exception(img, policy.Write, 0), 0); err != nil || e.ID != 3 {
		t.Errorf("the next one is %+v, %v", e, err)
	}
}

func TestExceptionsThatAreNone(t *testing.T) {
	h, g, img, _ := excepting(t)
	for want, spoil := range map[string]func(*Exception){
		"needs an image":     func(e *Exception) { e.Image = ID{} },
		"needs operations":   func(e *Exception) { e.Ops = 0 },
		"needs a reason":     func(e *Exception) { e.Reason = "" },
		"needs a time":       func(e *Exception) { e.Expires = time.Now() },
		"holds for 24h0m0s":  func(e *Exception) { e.Expires = time.Now().Add(25 * time.Hour) },
		"cannot be used -1 ": func(e *Exception) { e.Uses = -1 },
	} {
		e := h.exception(img, policy.Truncate, 0)
		spoil(&e)
		if _, err := g.Allow(e, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	h.config.SaveExceptions = func([]Exception) error { return errors.New("disk full") }
	g = h.guard()
	if _, err := g.Allow(h.exception(img, policy.Truncate, 0), 0); err == nil || len(g.Exceptions()) != 0 {
		t.Errorf("an exception that is not stored holds: %v", err)
	}
}

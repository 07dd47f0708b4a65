// SPDX-License-Identifier: Apache-2.0

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
	"imgward/test/need"
)

// excepting is a guard over a running domain's image.
func excepting(t *testing.T) (h *host, g *Guard, img string, dd *process) {
	h = newHost(t)
	img = h.image("vm.img")
	h.domain("vm", h.run("vmm").PID, img)
	return h, h.guard(), img, h.run("outsider")
}

func (h *host) exception(img string, ops policy.Ops, once bool) Exception {
	return Exception{
		Image: h.id(img), Path: img, Ops: ops, Once: once, Expires: time.Now().Add(time.Minute), Reason: "wiping for the test",
	}
}

func TestExceptionOnce(t *testing.T) {
	h, g, img, dd := excepting(t)
	other := h.run("outsider")
	r := h.request(OpTruncate, img, dd)
	if v := g.Check(background, r); v.Allowed {
		t.Fatal("allowed without any exception")
	}
	e, err := g.Allow(h.exception(img, policy.Truncate|policy.Write, true), 0)
	h.must(err)
	for range 3 { // asking does not use it up
		if v := g.Check(background, r); !v.Allowed || v.Exception != e.ID || v.Spend == nil || !v.CheckWrites || len(v.Uses) == 0 {
			t.Fatalf("with an exception: %+v", v)
		}
	}
	v1, v2 := g.Check(background, r), g.Check(background, h.request(OpTruncate, img, other))
	if !v1.Spend() {
		t.Error("the first one gets nothing")
	}
	if v2.Spend() {
		t.Error("two commands used one exception")
	}
	if v := g.Check(background, h.request(OpTruncate, img, other)); v.Allowed {
		t.Error("it was used up by another command, and still")
	}
	if v := g.Check(background, h.request(OpWrite, img, dd)); !v.Allowed || v.Spend != nil {
		t.Errorf("a write through what it has opened: %+v", v)
	}
	dd.end()
	if list := g.Exceptions(); len(list) != 0 {
		t.Errorf("it outlives its command: %+v", list)
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
	_, err := g.Allow(h.exception(img, policy.Truncate|policy.Write, false), 0)
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
		need.Skip(t, "TMPDIR is on a file system without STATX_BTIME (statx(2)), which ext4, XFS and btrfs have")
	}
	r := h.request(OpTruncate, img, dd)
	for _, tc := range []struct {
		born time.Time
		want bool
	}{{born.Add(-time.Nanosecond), false}, {born, true}} {
		e := h.exception(img, policy.Truncate, false)
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
	e := h.exception(img, policy.Truncate, false)
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
	e := h.exception(img, policy.Truncate, false)
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
		need.Kernel(t, "/proc/self/loginuid that can be set (CONFIG_AUDIT; and CAP_AUDIT_CONTROL)")
	}
	e, err := g.Allow(h.exception(img, policy.Truncate, false), cmd.Process.Pid)
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
	for range 2 {
		_, err := g.Allow(h.exception(img, policy.Truncate, true), 0)
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
		t.Error("its command cannot go on")
	}
	if v := successor.Check(background, h.request(OpTruncate, img, h.run("outsider"))); v.Allowed {
		t.Error("another command can use it once more")
	}
	if e, err := successor.Allow(h.exception(img, policy.Write, false), 0); err != nil || e.ID != 3 {
		t.Errorf("the next one is %+v, %v", e, err)
	}
}

func TestExceptionsThatAreNone(t *testing.T) {
	h, g, img, _ := excepting(t)
	for want, spoil := range map[string]func(*Exception){
		"needs an image":        func(e *Exception) { e.Image = ID{} },
		"needs operations":      func(e *Exception) { e.Ops = 0 },
		"needs a reason":        func(e *Exception) { e.Reason = "" },
		"needs a time":          func(e *Exception) { e.Expires = time.Now() },
		"holds for 24h at most": func(e *Exception) { e.Expires = time.Now().Add(25 * time.Hour) },
		"instead of ":           func(e *Exception) { e.Reason = " WHY" },
	} {
		e := h.exception(img, policy.Truncate, false)
		spoil(&e)
		if _, err := g.Allow(e, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	h.config.SaveExceptions = func([]Exception) error { return errors.New("disk full") }
	g = h.guard()
	if _, err := g.Allow(h.exception(img, policy.Truncate, false), 0); err == nil || len(g.Exceptions()) != 0 {
		t.Errorf("an exception that is not stored holds: %v", err)
	}
}

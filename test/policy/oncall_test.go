// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgward/test/need"
)

// event is what an operator's tools read.
type event struct {
	Type, View, Message, Version, Mode, Source string
	ID                                         uint64
	Time                                       time.Time
}

func (v *view) events(t *testing.T, args ...string) (list []event) {
	t.Helper()
	for line := range strings.Lines(v.run(t, append([]string{"events", "--json"}, args...)...)) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		list = append(list, e)
	}
	return list
}

// TestEventsOfViews: each event says which view it is of, the ids of two views do not meet, and all of them come in the
// order of time; a view's first event says what serves it, and a refusal's has the sentence of the terminal.
func TestEventsOfViews(t *testing.T) {
	a, b := mount(t, allAlways), mount(t, allAlways)
	me := program(t, t.TempDir()+"/me")
	x, y := a.image(t, "x.img"), b.image(t, "y.img")
	for _, image := range []string{x, y, x} {
		does(t, me, 0, "o_trunc", image)
	}
	ids, refused := map[uint64]bool{}, []string{}
	var all []event
	for _, e := range a.events(t) {
		if e.View != a.dir && e.View != b.dir {
			continue // somebody else's
		}
		all = append(all, e)
		if ids[e.ID] {
			t.Errorf("event %d is there twice", e.ID)
		}
		ids[e.ID] = true
		if e.Type == "refusal" {
			refused = append(refused, e.View)
			if !strings.HasPrefix(e.Message, "imgward: refused: me (pid ") || !strings.Contains(e.Message, "imgward allow --op") {
				t.Errorf("the refusal's message is %q", e.Message)
			}
		}
	}
	if !slices.IsSortedFunc(all, func(x, y event) int { return x.Time.Compare(y.Time) }) {
		t.Errorf("not in the order of time: %+v", all)
	}
	if want := []string{a.dir, b.dir, a.dir}; !slices.Equal(refused, want) {
		t.Errorf("refused in %v, not in %v", refused, want)
	}
	first := a.events(t, a.dir)[0]
	if first.Type != "view-begin" || first.View != a.dir || first.Version == "" || first.Source != a.policy || first.Mode != "passthrough" && first.Mode != "daemon" {
		t.Errorf("the first event is %+v", first)
	}
	a.killWorker(t)
	if after := a.events(t, a.dir); after[0].ID != first.ID || after[0].Type != "view-begin" || after[len(after)-1].ID != first.ID+uint64(len(after))-1 {
		t.Errorf("after a take-over: %+v", after)
	}
	if out := a.run(t, "events"); !strings.Contains(out, " "+a.dir+": refused: ") {
		t.Errorf("of several views the text does not say which: %s", out)
	}
	for _, v := range []*view{a, b} {
		if log := v.logged(t); !strings.Contains(log, "view="+v.dir) || !strings.Contains(log, `msg="imgward: refused: me `) || !strings.Contains(log, "the view has begun") {
			t.Errorf("the log does not say of which view it is, or what happened:\n%s", log)
		}
	}
}

// TestEndIsTold: who follows a view, and who reads its log, learns that it has ended.
func TestEndIsTold(t *testing.T) {
	v := newView(t, allAlways)
	v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	follow := exec.Command(bin, "events", "-f", "--json", v.dir)
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines := json.NewDecoder(out)
	var e event
	if err := lines.Decode(&e); err != nil || e.Type != "view-begin" {
		t.Errorf("%v, %+v", err, e)
	}
	v.run(t, "umount", v.dir)
	for lines.Decode(&e) == nil {
	}
	if e.Type != "view-end" {
		t.Errorf("the last event is %+v", e)
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("imgward events -f: %v", err)
	}
	if log := v.logged(t); !strings.Contains(log, "the view has ended") {
		t.Errorf("the log does not say that it ended:\n%s", log)
	}
}

// TestLogrotate: logrotate moves the log away, and worker, keeper and successor go on in a new one.
func TestLogrotate(t *testing.T) {
	v := mount(t, allAlways)
	me, image := program(t, t.TempDir()+"/me"), v.image(t, "x.img")
	text, err := os.ReadFile("../../dist/logrotate/imgward")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "imgward")
	mine := strings.NewReplacer("/var/log/imgward.log", v.log, "imgward status --json", bin+" status --json "+v.dir).Replace(string(text))
	if err := os.WriteFile(config, []byte(mine), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("logrotate", "--force", "--state", config+".state", config).CombinedOutput()
	if err != nil {
		t.Fatalf("logrotate: %v %s", err, out)
	}
	old, err := os.ReadFile(v.log + ".1")
	if err != nil || !strings.Contains(string(old), "the view has begun") {
		t.Fatalf("%v: the old log is %q", err, old)
	}
	until(t, "the worker goes on in a new log", func() bool {
		does(t, me, 0, "o_trunc", image)
		now, err := os.ReadFile(v.log)
		return err == nil && strings.Contains(string(now), "imgward: refused: me ")
	})
	v.killWorker(t)
	// The keeper says that one died, the successor that it serves.
	until(t, "keeper and successor do", func() bool {
		now := v.logged(t)
		return strings.Contains(now, "serving again") && strings.Contains(now, "killed")
	})
	if again, _ := os.ReadFile(v.log + ".1"); string(again) != string(old) && strings.Contains(string(again), "serving again") {
		t.Errorf("they go on in the old log:\n%s", again)
	}
}

// TestStatusCheck: monitoring gets a line and 0 or 1.
func TestStatusCheck(t *testing.T) {
	v := newView(t, allAlways)
	check := func(want int, text string) {
		t.Helper()
		code, out := v.code(t, "status", "--check", v.dir)
		if code != want || !strings.Contains(out, text) || strings.Count(out, "\n") != 1 {
			t.Errorf("exit code %d, %q; want %d and %q", code, out, want, text)
		}
	}
	check(1, "FAILED: ")
	v.mount(t)
	check(0, "OK: "+v.dir+" is protected")
	v.killWorker(t)
	check(0, "OK: ")
	v.setPolicy(t, "mode = \"audit\"\n")
	v.run(t, "policy", "reload", v.dir)
	check(1, "FAILED: "+v.dir+" is not protected: ")
	v.setPolicy(t, allAlways)
	v.run(t, "policy", "reload", v.dir)
	mountTmpfs(t, v.dir)
	check(1, "FAILED: "+v.dir+" is not protected: ")
	unmount(t, v.dir)
	until(t, "it is well again", func() bool { code, _ := v.code(t, "status", "--check", v.dir); return code == 0 })
}

// TestNoViews: where nothing is protected, no command is silent about it.
func TestNoViews(t *testing.T) {
	need.Have(t, need.View()...)
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"events", "graph", "upgrade", "top", "status --check"} {
		// In a mount namespace with a /run of its own there is none.
		cmd := exec.Command("unshare", "-m", "sh", "-c", "mount -t tmpfs none /run && exec "+bin+" "+command)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "no imgward view is mounted") {
			t.Errorf("%s: %v, %q", command, err, out)
		}
	}
}

package policy

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
)

const allAlways = "protect = \"always\"\n"

func TestException(t *testing.T) {
	v := mount(t, allAlways)
	me, image := program(t, t.TempDir()+"/me"), v.image(t, "free.img")
	other := v.image(t, "other.img")
	want := func(op, path, want string) {
		t.Helper()
		if got := does(t, me, 0, op, path); got != want {
			t.Errorf("%s of %s: %s, want %s", op, path, got, want)
		}
	}
	want("o_trunc", image, "EBUSY")
	v.run(t, "allow", "--op", "truncate", "--for", "1m", "--once", "--reason", "because \x1b[31m of\nthe test", image)
	want("o_trunc", other, "EBUSY") // for one image
	want("write", image, "EBUSY")   // and one operation
	v.killWorker(t)
	want("o_trunc", image, "ok")
	want("o_trunc", image, "EBUSY") // and once

	v.run(t, "allow", "--op", "truncate,write", "--for", "1m", "--reason", "more", image)
	if status := v.run(t, "status", v.dir); !strings.Contains(status, "EXCEPTION") || !strings.Contains(status, "more") {
		t.Errorf("status does not show it:\n%s", status)
	}
	want("o_trunc", image, "ok")
	want("write", image, "ok")
	v.run(t, "allow", "--revoke", "2", v.dir)
	want("write", image, "EBUSY")

	v.run(t, "allow", "--op", "write", "--for", "300ms", "--reason", "short", image)
	until(t, "the exception runs out", func() bool { return does(t, me, 0, "write", image) == "EBUSY" })
	if out := v.run(t, "allow", "--list", v.dir); strings.TrimSpace(out) != "" {
		t.Errorf("exceptions that do not hold: %s", out)
	}
	for _, line := range strings.Split(v.run(t, "events", v.dir), "\n") {
		if strings.ContainsAny(line, "\x1b") {
			t.Errorf("a terminal escape in %q", line)
		}
	}
}

func TestExceptionRefused(t *testing.T) {
	v := mount(t, allAlways)
	image := v.image(t, "a.img")
	for _, args := range [][]string{
		{"--op", "truncate", "--for", "25h", "--reason", "long", image},
		{"--op", "truncate", "--for", "1m", image},
		{"--op", "truncat", "--for", "1m", "--reason", "x", image},
		{"--for", "1m", "--reason", "x", image},
		{"--op", "truncate", "--for", "-1m", "--reason", "x", image},
		{"--op", "truncate", "--for", "1m", "--reason", "x", v.dir},
		{"--op", "truncate", "--for", "1m", "--reason", "x", image + ".none"},
		{"--revoke", "99", v.dir},
	} {
		if out, err := v.try(t, append([]string{"allow"}, args...)...); err == nil {
			t.Errorf("allow %q: %s", args, out)
		}
	}
}

// killWorker kills the serving process, and returns when its successor answers.
func (v *view) killWorker(t *testing.T) {
	t.Helper()
	before := v.describe(t)
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "a successor serves", func() bool { return v.describe(t).PID != before.PID })
}

type description struct {
	PID       int
	KeeperPID int `json:"keeper_pid"`
	Policy    string
	Warnings  []string
}

func (v *view) describe(t *testing.T) (d description) {
	t.Helper()
	line, _, _ := strings.Cut(v.run(t, "status", "--json", v.dir), "\n")
	if err := json.Unmarshal([]byte(line), &d); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return d
}

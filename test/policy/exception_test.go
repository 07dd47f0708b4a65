// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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
	if out := v.run(t, "allow", "--list", v.dir); strings.TrimSpace(out) != "no exception is in force" {
		t.Errorf("exceptions that do not hold: %s", out)
	}
	for _, line := range strings.Split(v.run(t, "events", v.dir), "\n") {
		if strings.ContainsAny(line, "\x1b") {
			t.Errorf("a terminal escape in %q", line)
		}
	}
}

// An exception is for a file, not for what its file system makes of the inode number when the file is gone.
func TestExceptionEndsWithItsFile(t *testing.T) {
	for _, inodes := range []string{"256", "128"} { // the small ones have no time of birth
		t.Run(inodes, func(t *testing.T) { exceptionEndsWithItsFile(t, inodes) })
	}
}

func exceptionEndsWithItsFile(t *testing.T, inodes string) {
	v := newView(t, allAlways)
	// A file system of its own, where nobody else takes the number meanwhile.
	disk := v.policy + ".ext4"
	for _, args := range [][]string{{"truncate", "-s", "8M", disk}, {"mkfs.ext4", "-q", "-I", inodes, disk}, {"mount", "-o", "loop", disk, v.dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(v.dir, 0); err != nil {
			t.Error(err)
		}
	})
	v.mount(t)
	me, image := program(t, t.TempDir()+"/me"), v.image(t, "a.img")
	v.run(t, "allow", "--op", "all", "--for", "10m", "--reason", "it is to go", image)
	was := inode(t, image)
	if err := os.Remove(image); err != nil {
		t.Fatalf("with an exception: %v", err)
	}
	for i := range 1000 {
		image = v.image(t, fmt.Sprintf("%d.img", i))
		if inode(t, image) != was {
			continue
		}
		if got := does(t, me, 0, "o_trunc", image); got != "EBUSY" {
			t.Errorf("another file has the exception of a removed one: %s", got)
		}
		return
	}
	t.Error("ext4 has not used the inode number again")
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
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
	Protected bool
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

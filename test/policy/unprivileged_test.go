// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/cmd/imgward/control"
)

const nobody = 65534

// An unprivileged user gains nothing by the view: neither more nor less than by the directory below.
func TestUnprivileged(t *testing.T) {
	v := mount(t, allAlways)
	user := program(t, filepath.Join(filepath.Dir(v.dir), "user")) // where everybody can run it
	root := v.image(t, "root.img")                                 // 0644: not his to write, protected or not
	if got := does(t, user, nobody, "write", root); got != "EACCES" {
		t.Errorf("write: %s", got)
	}
	if got := does(t, user, nobody, "read", root); got != "ok" {
		t.Errorf("read: %s", got)
	}
	if err := os.Chmod(root, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := does(t, user, nobody, "read", root); got != "EACCES" {
		t.Errorf("read of another's file: %s", got)
	}

	// A link in a directory that is his leads where he may go, and not around the guard.
	shared := filepath.Join(v.dir, "shared")
	if err := os.Mkdir(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	own := v.image(t, "shared/own.img")
	if err := os.Chown(own, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"a": "own.img", "b": "../shared/../shared/own.img", "c": own} {
		link := filepath.Join(shared, name)
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		if got := does(t, user, nobody, "o_trunc", link); got != "EBUSY" {
			t.Errorf("through the link %s: %s", to, got)
		}
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(shared, "shadow")); err != nil {
		t.Fatal(err)
	}
	if got := does(t, user, nobody, "read", filepath.Join(shared, "shadow")); got != "EACCES" {
		t.Errorf("/etc/shadow by a link: %s", got)
	}
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Mode()
}

// The socket is out of reach, and would not listen if it were not.
func TestSocket(t *testing.T) {
	v := mount(t, allAlways)
	dir := control.Dir(v.dir)
	if m := mode(t, dir).Perm(); m != 0o700 {
		t.Errorf("%s has mode %o", dir, m)
	}
	if m := mode(t, control.Socket(v.dir)).Perm(); m != 0o600 {
		t.Errorf("the socket has mode %o", m)
	}
	// As if somebody had opened it up.
	for path, m := range map[string]os.FileMode{dir: 0o755, control.Socket(v.dir): 0o666} {
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
	}
	image := v.image(t, "a.img")
	if code := askAs(t, nobody, control.Socket(v.dir), filepath.Base(image)); code != http.StatusForbidden {
		t.Errorf("an exception for nobody: %d", code)
	}
	if out := v.run(t, "allow", "--list", v.dir); strings.TrimSpace(out) != "no exception is in force" {
		t.Errorf("granted: %s", out)
	}
}

// askAs asks for an exception as another user: SO_PEERCRED is what the thread is at connect(2).
func askAs(t *testing.T, uid int, socket, path string) int {
	c := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dialAs(uid, socket) }}}
	body := strings.NewReader(`{"path":"` + path + `","ops":"all","seconds":60,"reason":"mine"}`)
	res, err := c.Post("http://imgward/v1/allow", "application/json", body)
	if err != nil {
		t.Error(err)
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// Names that want to be taken for something else arrive as they are in JSON, and escaped everywhere else.
func TestConfusingNames(t *testing.T) {
	v := mount(t, allAlways)
	me := program(t, t.TempDir()+"/me")
	for _, name := range []string{
		"a\nimgward: refused: everything is fine", "b\x1b[2J\x1b]0;title\a", "c\"},{\"type\":\"view\"", "d\u202egmi.exe", "e\xff\xfe", "level=ERROR f", strings.Repeat("g", 255),
	} {
		image := v.image(t, name)
		if got := does(t, me, 0, "o_trunc", image); got != "EBUSY" {
			t.Errorf("%q: %s", name, got)
		}
	}
	for _, args := range [][]string{{"events", v.dir}, {"status", v.dir}} {
		for _, line := range strings.Split(v.run(t, args...), "\n") {
			if strings.ContainsAny(line, "\x1b\a\u202e") || strings.HasPrefix(line, "imgward: refused") {
				t.Errorf("%s prints %q", args[0], line)
			}
		}
	}
	log, err := os.ReadFile(v.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(log)), "\n") {
		if !strings.HasPrefix(line, "time=") || strings.ContainsAny(line, "\x1b\a\u202e") {
			t.Errorf("the log has %q", line)
		}
	}
	if events := v.run(t, "events", "--json", v.dir); strings.Count(events, "\n") != strings.Count(events, `{"type":`) {
		t.Errorf("not one object on each line:\n%s", events)
	}
}

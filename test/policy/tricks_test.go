// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody runs a shell script as a user without rights, in a directory, and returns what it says.
func asNobody(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
	out, _ := cmd.CombinedOutput() // what it says is the result
	return strings.TrimSpace(string(out))
}

// sharedDir makes a directory of the view that everybody may write to, as /tmp is.
func (v *view) sharedDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(v.dir, "shared")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, os.ModeSticky|0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// secret makes a file that only root may read, in a directory that only root may enter.
func (v *view) secret(t *testing.T, text string) (dir string) {
	t.Helper()
	dir = filepath.Join(v.dir, "secret")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What a user tries who is not root: each as it would end without the view.
func TestTricks(t *testing.T) {
	v := mount(t, "protect = \"running\"\n")
	shared := v.sharedDir(t)
	v.secret(t, "secret")
	open := v.image(t, "root.img")
	if err := os.Chmod(open, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ script, want string }{
		"a descriptor for nothing, opened again": {
			`python3 -c 'import os; fd = os.open("../root.img", os.O_PATH); open("/proc/self/fd/%d" % fd)'`, "Permission denied"},
		"another's descriptor":                 {`cat /proc/1/fd/0`, "Permission denied"},
		"another's directory":                  {`cat ../secret/file`, "Permission denied"},
		"a device node":                        {`mknod disk b 7 0`, "Operation not permitted"},
		"root's file, given to root":           {`cp /bin/true suid && chmod u+s suid && chown root suid`, "Operation not permitted"},
		"another's file, renamed":              {`mv ../root.img mine`, "Permission denied"},
		"another's file in a sticky directory": {`rm -f of-root`, "Operation not permitted"},
		"a hard link to another's file":        {`ln ../root.img link`, "Operation not permitted"},
		"trusted attributes":                   {`touch x; setfattr -n trusted.x -v 1 x`, "Operation not permitted"},
		"a flag that stops root":               {`touch y; chattr +i y`, "Operation not permitted"},
	} {
		if err := os.WriteFile(filepath.Join(shared, "of-root"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := asNobody(t, shared, c.script); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}

	// A program of root's loses its privilege when somebody else writes to it.
	suid := filepath.Join(shared, "of-root")
	if err := os.Chmod(suid, os.ModeSetuid|0o777); err != nil {
		t.Fatal(err)
	}
	asNobody(t, shared, "echo x >>of-root")
	if m := mode(t, suid); m&os.ModeSetuid != 0 {
		t.Errorf("it is %v still", m)
	}
}

// A link that is swapped while it is followed leads to what the user may read, or nowhere.
func TestSymlinkRace(t *testing.T) {
	v := mount(t, "protect = \"running\"\n")
	shared, secret := v.sharedDir(t), v.secret(t, "secret")
	mine := filepath.Join(shared, "mine")
	if err := os.Mkdir(mine, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mine, "file"), []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"a": mine, "b": secret} {
		if err := os.Symlink(to, filepath.Join(shared, name)); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, shared+"/a", unix.AT_FDCWD, shared+"/b", unix.RENAME_EXCHANGE)
			}
		}
	})
	got := asNobody(t, shared, `i=0; while [ $i -lt 300 ]; do read -r line <a/file && echo "$line"; i=$((i+1)); done 2>/dev/null | sort | uniq -c`)
	close(stop)
	all.Wait()
	if !strings.HasSuffix(got, "mine") || strings.Contains(got, "secret") {
		t.Errorf("read was %q", got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

// TestKeeperKilled: the worker serves on, another keeper adopts it, and that one survives the worker.
func TestKeeperKilled(t *testing.T) {
	h := harness.NewFiles(t)
	v := h.Mount(t)
	v.Expected = []string{"the worker died", "the keeper died"}
	held := hold(t, v)
	for range 5 {
		before := v.Status(t)
		kill(t, before.KeeperPID, syscall.SIGKILL)
		harness.Until(t, "another keeper holds the view", func() bool {
			s := v.Status(t)
			return s.KeeperPID != before.KeeperPID && len(s.Warnings) == 0
		})
		killOne(t, v)
	}
	held.check(t)
}

// TestBothKilled: then there is nobody who holds the connection. Users are told at once, by ENOTCONN, and the administrator
// is told what to do.
func TestBothKilled(t *testing.T) {
	h := harness.NewFiles(t)
	v := h.Mount(t)
	file := filepath.Join(v.Dir, "file")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	v.KillAll(t)
	if _, err := os.ReadFile(file); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("reading a file: %v, want ENOTCONN", err)
	}
	harness.Run(t, harness.Imgward(), "mount", v.Dir).Fails(t, "umount -l "+v.Dir+", then try again")
	harness.Run(t, "umount", "-l", v.Dir).OK(t)
	again := h.Mount(t)
	if b, err := os.ReadFile(file); string(b) != "content" {
		t.Errorf("after mounting again, a file holds %q (%v)", b, err)
	}
	again.End(t)
}

// TestEnd: a view ends when nobody holds files through it, else it says who does; --lazy serves them to their end.
func TestEnd(t *testing.T) {
	h := harness.NewFiles(t)
	v := h.Mount(t)
	v.Expected = []string{"asked to end, but the view is in use", "the worker died"}
	file, err := os.Create(filepath.Join(v.Dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	me := "(pid " + strconv.Itoa(os.Getpid()) + ") has file open for writing"
	harness.Run(t, harness.Imgward(), "umount", v.Dir).Fails(t, me)
	s := v.Status(t)
	for _, pid := range []int{s.PID, s.KeeperPID} {
		logged := strings.Count(v.Logged(t), "asked to end")
		kill(t, pid, syscall.SIGTERM)
		harness.Until(t, "SIGTERM is refused", func() bool { return strings.Count(v.Logged(t), "asked to end") > logged })
	}
	if now := v.Status(t); now.PID != s.PID || now.KeeperPID != s.KeeperPID {
		t.Errorf("SIGTERM has changed something: %+v, was %+v", now, s)
	}
	harness.Run(t, harness.Imgward(), "umount", "--lazy", v.Dir).OK(t)
	kill(t, s.PID, syscall.SIGKILL)
	if _, err := file.WriteString("still written"); err != nil {
		t.Error(err)
	}
	if err := file.Sync(); err != nil {
		t.Error(err)
	}
	file.Close()
	v.Ended(t, s.KeeperPID)
	if b, err := os.ReadFile(filepath.Join(v.Dir, "file")); string(b) != "still written" {
		t.Errorf("the file holds %q (%v)", b, err)
	}
}

// TestForeground: a signal from the terminal ends the view, not only its keeper.
func TestForeground(t *testing.T) {
	h := harness.NewFiles(t)
	d := harness.Spawn(t, filepath.Join(h.Dir, "foreground.log"), harness.Imgward(), "mount", "-f", h.Images)
	harness.Until(t, "it serves", func() bool { return strings.Contains(d.Logged(t), "is protected") })
	kill(t, d.PID(), syscall.SIGINT)
	harness.Until(t, "it ends", func() bool { return !d.Alive() })
	if len(harness.Mounts(t)) > 0 {
		t.Error("the view is still mounted")
	}
}

// TestOtherVersion: a binary that does not know the state's layout leaves everything as it is, and says why; users wait.
// When one comes that knows it, all is there.
func TestOtherVersion(t *testing.T) {
	h := harness.NewFiles(t)
	v := h.Mount(t, "-o", "nostandby")
	v.Expected = []string{"the worker died", "no worker can serve", "does not serve"}
	held := hold(t, v)
	s := v.Status(t)
	memory := stateOf(t, s.KeeperPID)
	layout := func(version byte) {
		t.Helper()
		if _, err := memory.WriteAt([]byte{version}, 8); err != nil { // the second word of the header
			t.Fatal(err)
		}
	}
	layout(99)
	harness.Run(t, harness.Imgward(), "upgrade", v.Dir).Fails(t, "another version of imgward (layout 99")
	kill(t, s.PID, syscall.SIGSTOP) // what serves changes it
	before := content(t, memory)
	kill(t, s.PID, syscall.SIGKILL)
	harness.Until(t, "a successor has said why it does not serve", func() bool {
		return strings.Contains(v.Logged(t), "no worker can serve")
	})
	if !bytes.Equal(content(t, memory), before) {
		t.Error("the state was changed by a program that does not know it")
	}
	layout(1)
	killed := v.Status(t) // waits
	if killed.PID == s.PID || killed.KeeperPID != s.KeeperPID {
		t.Errorf("served by %+v, was %+v", killed, s)
	}
	held.check(t)
}

// stateOf opens a view's state memory.
func stateOf(t *testing.T, keeper int) *os.File {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", keeper)
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(dir + fd.Name()); strings.Contains(to, "imgward-state") {
			f, err := os.OpenFile(dir+fd.Name(), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			return f
		}
	}
	t.Fatal("the keeper has no state memory")
	return nil
}

// content is all that the memory has in it, without its holes.
func content(t *testing.T, f *os.File) []byte {
	t.Helper()
	var all []byte
	for off := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(io.NewSectionReader(f, data, hole-data))
		if err != nil {
			t.Fatal(err)
		}
		all, off = append(all, b...), hole
	}
}

// TestUpgrade: a program that could not take over changes nothing; one that could does, and back, and its keeper becomes the
// same program, without losing anything.
func TestUpgrade(t *testing.T) {
	h := harness.NewFiles(t)
	v := h.Mount(t)
	v.Expected = []string{"the worker died"}
	held := hold(t, v)
	other := filepath.Join(h.Out, "imgward")
	harness.Run(t, "cp", harness.Imgward(), other).OK(t)
	before := v.Status(t)
	upgrade := func(binary string) harness.Result {
		return harness.Run(t, harness.Imgward(), "upgrade", "--binary", binary, v.Dir)
	}
	upgrade("/bin/false").Fails(t, "could not take over")
	if s := v.Status(t); s.PID != before.PID {
		t.Errorf("a program that is no imgward has changed the worker: %+v, was %+v", s, before)
	}
	for _, binary := range []string{other, harness.Imgward(), other} {
		before := v.Status(t)
		upgrade(binary).OK(t)
		s := v.Status(t)
		if exe := executes(s.PID); exe != binary || s.PID == before.PID {
			t.Errorf("%s serves, want %s", exe, binary)
		}
		harness.Until(t, "the keeper is the new program", func() bool { return executes(s.KeeperPID) == binary })
		if s.KeeperPID != before.KeeperPID {
			t.Errorf("the keeper is another process: %d, was %d", s.KeeperPID, before.KeeperPID)
		}
		killOne(t, v)
		if exe := executes(v.Status(t).PID); exe != binary {
			t.Errorf("after a kill, %s serves, want %s", exe, binary)
		}
	}
	held.check(t)
}

// executes is the path of a process's program; empty in the midst of execve(2).
func executes(pid int) string {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return exe
}

func kill(t *testing.T, pid int, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
}

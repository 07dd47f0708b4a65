// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/internal/pty"
	"imgward/guard/procfs"
	"imgward/test/need"
)

var proc = procfs.FS{Root: "/proc"}

// run starts a shell script whose controlling terminal is a new one, and waits until it says "ready" on fd 9.
func run(t *testing.T, script string, args ...string) (master *os.File, pid int) {
	t.Helper()
	need.Have(t, need.Terminals)
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("bash", append([]string{"-c", script, "bash"}, args...)...)
	pty.Control(cmd, tty)
	cmd.Stdout, cmd.Stderr = tty, tty
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close() // the script's own end: if it fails, there is nothing to wait for
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		master.Close()
	})
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal("the script never got ready:", err)
	}
	return master, cmd.Process.Pid
}

const ready = "; echo ready >&3; exec sleep 60"

// shown reads what a terminal shows until it contains the text, or a minute has passed.
func shown(t *testing.T, master *os.File, text string) string {
	t.Helper()
	timer := time.AfterFunc(60*time.Second, func() { master.Close() })
	defer timer.Stop()
	var all strings.Builder
	buf := make([]byte, 1024)
	for !strings.Contains(all.String(), text) {
		n, err := master.Read(buf)
		if err != nil {
			t.Fatalf("the terminal shows %q, want %q: %v", all.String(), text, err)
		}
		all.Write(buf[:n])
	}
	return all.String()
}

func TestTell(t *testing.T) {
	for name, script := range map[string]string{
		"at the terminal": "true",
		"all redirected":  "exec </dev/null >/dev/null 2>&1",
		"only input left": "exec >/dev/null 2>&1",
	} {
		t.Run(name, func(t *testing.T) {
			master, pid := run(t, script+ready)
			if err := Tell(proc, pid, text("imgward: hello")); err != nil {
				t.Fatal(err)
			}
			if got := shown(t, master, "hello"); !strings.HasPrefix(got, "imgward: hello\r") {
				t.Errorf("the terminal shows %q", got)
			}
		})
	}
}

// In a container the same number is another terminal; only the process's own descriptors lead to the right one.
func TestTellOtherNamespace(t *testing.T) {
	need.Have(t, need.Root, need.Mounting)
	const unshare = `exec unshare -m bash -c '%` + ready + `'`
	master, pid := run(t, strings.Replace(unshare, "%", "true", 1))
	if err := Tell(proc, pid, text("hello")); err != nil {
		t.Fatal(err)
	}
	shown(t, master, "hello")

	_, pid = run(t, strings.Replace(unshare, "%", "exec </dev/null >/dev/null 2>&1", 1))
	if err := Tell(proc, pid, text("hello")); !errors.Is(err, ErrNone) {
		t.Errorf("the line went to a terminal of the same number: %v", err)
	}
}

// A stopped terminal (Ctrl-S, a hung ssh) takes nothing. That must not hold anybody up.
func TestTellDoesNotBlock(t *testing.T) {
	_, pid := run(t, "true"+ready)
	line := strings.Repeat("x", 1000)
	for range 1000 {
		if err := Tell(proc, pid, text(line)); err != nil {
			return
		}
	}
	t.Error("a megabyte went to a terminal that nobody reads")
}

func TestTellNoTerminal(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	pty.Control(cmd, nil)
	cmd.SysProcAttr.Setctty = false
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if err := Tell(proc, cmd.Process.Pid, text("x")); !errors.Is(err, ErrNone) {
		t.Errorf("a process without a terminal: %v", err)
	}
	if name := Name(proc, cmd.Process.Pid); name != "" {
		t.Errorf("its terminal is %s", name)
	}
	if err := Tell(proc, 1<<30, text("x")); err == nil {
		t.Error("a process that does not exist was told")
	}
}

func TestName(t *testing.T) {
	_, pid := run(t, "exec </dev/null"+ready)
	if name := Name(proc, pid); !strings.HasPrefix(name, "/dev/pts/") {
		t.Errorf("the terminal is %q", name)
	}
}

func TestTellVMM(t *testing.T) {
	vmm := func(t *testing.T, stderr *os.File) int {
		cmd := exec.Command("sleep", "60")
		pty.Control(cmd, nil)
		cmd.SysProcAttr.Setctty = false
		cmd.Stderr = stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd.Process.Pid
	}
	t.Run("pipe", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		pid := vmm(t, w)
		w.Close()
		if err := TellVMM(proc, pid, text("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		if n, _ := r.Read(buf); string(buf[:n]) != "hello\n" {
			t.Errorf("the pipe carries %q", buf[:n])
		}
	})
	t.Run("log", func(t *testing.T) {
		log, err := os.Create(filepath.Join(t.TempDir(), "vm.log"))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(log, "before\n")
		pid := vmm(t, log)
		if err := TellVMM(proc, pid, text("hello")); err != nil {
			t.Fatal(err)
		}
		if text, _ := os.ReadFile(log.Name()); string(text) != "before\nhello\n" {
			t.Errorf("the log says %q", text)
		}
	})
	// Anybody can call a program as a VMM is called, and the line has its name in it.
	for name, flags := range map[string]int{"read-only": os.O_RDONLY, "path": unix.O_PATH} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "passwd")
			if err := os.WriteFile(file, []byte("root\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			stderr, err := os.OpenFile(file, flags, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer stderr.Close()
			if err := TellVMM(proc, vmm(t, stderr), text("hello")); !errors.Is(err, ErrNone) {
				t.Error(err)
			}
			if text, _ := os.ReadFile(file); string(text) != "root\n" {
				t.Errorf("the file that the process may not write to says %q", text)
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		pid := vmm(t, nil) // /dev/null
		if err := TellVMM(proc, pid, text("hello")); !errors.Is(err, ErrNone) {
			t.Error(err)
		}
	})
}

func text(line string) func() string { return func() string { return line } }

// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// keep is a keeper in a process of its own: `keeper SOCKET PROGRAM [ESTATE]`.
func keep(args []string) error {
	k := &Keeper{
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Binary: args[1], Socket: args[0], Ready: func() {},
		Self: func(snapshot int) []string { return []string{"keeper", args[0], args[1], strconv.Itoa(snapshot)} },
	}
	if len(args) > 2 {
		fd, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		if k.Resume, err = ReadSnapshot(fd); err != nil {
			return err
		}
	}
	return k.Run()
}

// become is a keeper in another process, and its first worker.
type become struct {
	cmd  *exec.Cmd
	out  string
	pid  int // of the worker
	next func() (pid, count int)
}

const kept = 5000 // descriptors: more than an environment could name

func startOther(t *testing.T) *become {
	t.Helper()
	need.Have(t, need.Root) // a keeper listens to nobody else
	dir := t.TempDir()
	program, log := filepath.Join(dir, "program"), filepath.Join(dir, "log")
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	t.Setenv(roleEnv, strconv.Itoa(kept))
	t.Setenv("KEEPER_TEST_LOG", log)
	k := &become{cmd: exec.Command(os.Args[0], "keeper", filepath.Join(dir, "notify"), program), out: out.Name(), next: serving(t, log)}
	k.cmd.Stdout, k.cmd.Stderr = out, out
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	k.pid, _ = k.next()
	return k
}

func (k *become) said(what string) int {
	b, _ := os.ReadFile(k.out)
	return strings.Count(string(b), what)
}

// kill kills the worker; its successor must have everything.
func (k *become) kill(t *testing.T) {
	t.Helper()
	unix.Kill(k.pid, unix.SIGKILL)
	successor, inherited := k.next()
	if inherited != kept || successor == k.pid {
		t.Fatalf("worker %d after %d has %d descriptors, want %d", successor, k.pid, inherited, kept)
	}
	k.pid = successor
}

// end has the view end, as SIGTERM asks for.
func (k *become) end(t *testing.T) {
	t.Helper()
	if parent := parentOf(t, k.pid); parent != k.cmd.Process.Pid {
		t.Errorf("the worker is a child of %d, want %d", parent, k.cmd.Process.Pid)
	}
	unix.Kill(k.cmd.Process.Pid, unix.SIGTERM)
	if err := k.cmd.Wait(); err != nil {
		t.Errorf("the end: %v", err)
	}
}

// TestRenew: a keeper becomes another program, in the same process, and has everything that it had: descriptors, messages
// that waited, and the worker, whose end it is told of and whose status it can tell.
func TestRenew(t *testing.T) {
	k := startOther(t)
	const times = 3
	for i := range times {
		unix.Kill(k.pid, unix.SIGHUP) // the worker asks for it
		for end := time.Now().Add(20 * time.Second); k.said("goes on as a new program") == i; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the keeper stays as it is")
			}
		}
		k.kill(t)
	}
	k.end(t)
	if n := k.said("signal: killed"); n != times {
		t.Errorf("the keeper tells of %d workers how they ended, want %d", n, times)
	}
}

// TestRenewWhileItDies: the worker dies before, while and after its keeper becomes another program.
func TestRenewWhileItDies(t *testing.T) {
	k := startOther(t)
	for i := range 20 {
		unix.Kill(k.pid, unix.SIGHUP)
		time.Sleep(time.Duration(i) * time.Millisecond)
		k.kill(t)
	}
	if k.said("goes on as a new program") == 0 {
		t.Error("the keeper was never fast enough to be tested")
	}
	k.end(t)
}

// TestRenewFails: where the program's path leads nowhere by now, or to another program, the keeper stays what it is. (If it
// became /bin/false, so would this test.)
func TestRenewFails(t *testing.T) {
	for name, binary := range map[string]string{"gone": "/nonexistent", "another": "/bin/false"} {
		t.Run(name, func(t *testing.T) {
			socket, next := run(t, "3", func(k *Keeper) {
				k.Self = func(int) []string { return nil }
				k.Ready = func() { k.Binary = binary }
			})
			pid, _ := next()
			c := client(t, socket)
			if err := c.Renew(); err != nil {
				t.Fatal(err)
			}
			if err := c.Leave(os.Args[0]); err != nil {
				t.Fatal(err)
			}
			if err := c.Barrier(); err != nil {
				t.Fatal(err)
			}
			unix.Kill(pid, unix.SIGKILL)
			if _, inherited := next(); inherited != 3 {
				t.Errorf("the next worker has %d descriptors, want 3", inherited)
			}
		})
	}
}

func parentOf(t *testing.T, pid int) (parent int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(b[bytes.LastIndexByte(b, ')')+4:]), &parent); err != nil {
		t.Fatal(err)
	}
	return parent
}

// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// The test binary is the worker, too: role says what it does.
const roleEnv = "KEEPER_TEST_ROLE"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "keeper" {
		if err := keep(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "keeper:", err)
			os.Exit(1)
		}
		return
	}
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// play is a worker: the first one gives the keeper as many files as its role says, each holding its own name; each says
// READY with its pid and what it inherited, and dies when it is killed.
func play(role string) error {
	kept, err := Receive(func(state *os.File) error {
		if role == "refuses" {
			return errors.New("another layout")
		}
		return nil
	})
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	switch role {
	case "fails":
		return errors.New("no reason")
	case "hangs":
		time.Sleep(time.Hour)
	case "busy":
		go func() {
			for n := new(atomic.Int64); ; n.Add(1) {
			}
		}()
	}
	c, err := Connect(false)
	if err != nil {
		return err
	}
	if len(kept.Files) == 0 {
		if err := fill(c, role); err != nil {
			return err
		}
	}
	for name, fd := range kept.Files {
		buf := make([]byte, 64)
		n, err := unix.Pread(fd, buf, 0)
		if err != nil || string(buf[:n]) != name {
			return fmt.Errorf("%s holds %q: %v", name, buf[:n], err)
		}
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, unix.SIGTERM)
	ready := []string{"READY=1", Pulsing}
	if role == "no pulse" {
		ready = ready[:1]
	}
	if err := c.Notify(ready...); err != nil {
		return err
	}
	f, err := os.OpenFile(os.Getenv("KEEPER_TEST_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, unix.SIGHUP)
	go func() {
		for range again {
			_ = c.Renew()
		}
	}()
	fmt.Fprintf(f, "%d %d\n", os.Getpid(), len(kept.Files))
	<-end
	return c.Notify("STOPPING=1")
}

func fill(c *Client, role string) error {
	count, err := strconv.Atoi(role)
	if err != nil {
		count = 1
	}
	for i := range count {
		name := stateName
		if i > 0 {
			name = fmt.Sprintf("h%029d", i)
		}
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, []byte(name)); err != nil {
			return err
		}
		if err := c.Keep(name, fd); err != nil {
			return err
		}
		unix.Close(fd)
	}
	return nil
}

// run starts a keeper with workers of a role, and returns it and what tells the next worker's pid and number of inherited
// descriptors.
func run(t *testing.T, role string, configure func(*Keeper)) (socket string, next func() (pid, count int)) {
	t.Helper()
	need.Have(t, need.Root) // a keeper listens to nobody else
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	t.Setenv(roleEnv, role)
	t.Setenv("KEEPER_TEST_LOG", log)
	k := &Keeper{
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Binary: os.Args[0], Socket: filepath.Join(dir, "notify"), Ready: func() {},
	}
	if configure != nil {
		configure(k)
	}
	ended := make(chan error, 1)
	go func() { ended <- k.Run() }()
	t.Cleanup(func() {
		var pid int
		b, _ := os.ReadFile(log)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		fmt.Sscan(lines[len(lines)-1], &pid)
		unix.Kill(pid, unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Error("the keeper does not end")
		}
	})
	return k.Socket, serving(t, log)
}

// serving reads the log that workers write.
func serving(t *testing.T, log string) (next func() (pid, count int)) {
	seen := 0
	return func() (pid, count int) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			b, _ := os.ReadFile(log)
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			if len(lines) > seen && lines[0] != "" {
				fmt.Sscan(lines[seen], &pid, &count)
				seen++
				return pid, count
			}
		}
		t.Fatal("no worker serves")
		return 0, 0
	}
}

func client(t *testing.T, socket string) *Client {
	t.Helper()
	t.Setenv("NOTIFY_SOCKET", socket)
	c, err := Connect(false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTakeOver: each worker that is killed is followed by another, which has all descriptors by their names: with a standby,
// killed before there is one, and without; and more of them than an environment could name.
func TestTakeOver(t *testing.T) {
	for name, configure := range map[string]func(*Keeper){
		"standby":    nil,
		"no standby": func(k *Keeper) { k.NoStandby = true },
	} {
		t.Run(name, func(t *testing.T) {
			const count = 300 // more than one message holds
			_, next := run(t, strconv.Itoa(count), configure)
			pid, _ := next()
			for i := range 6 {
				if name == "standby" && i%2 == 0 {
					time.Sleep(2 * standbyAfter)
				}
				unix.Kill(pid, unix.SIGKILL)
				successor, inherited := next()
				if inherited != count || successor == pid {
					t.Fatalf("worker %d has %d descriptors, want %d", successor, inherited, count)
				}
				pid = successor
			}
		})
	}
}

// TestThousandsOfDescriptors: their names, 30 bytes each, do not fit into an environment string, which may be 128 KiB.
func TestThousandsOfDescriptors(t *testing.T) {
	const count = 5000
	_, next := run(t, strconv.Itoa(count), nil)
	pid, _ := next()
	unix.Kill(pid, unix.SIGKILL)
	if _, inherited := next(); inherited != count {
		t.Errorf("%d descriptors, want %d", inherited, count)
	}
}

// TestTry: a program that could not take over changes nothing and says why; one that could is the next worker.
func TestTry(t *testing.T) {
	socket, next := run(t, "1", nil)
	first, _ := next()
	c := client(t, socket)
	for role, want := range map[string]string{"refuses": "another layout", "": "it ended and said nothing"} {
		t.Setenv(roleEnv, role)
		program := os.Args[0]
		if role == "" {
			program = "/bin/false"
		}
		if err := c.Try(program); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", program, err, want)
		}
	}
	if err := c.Try("/nonexistent"); err == nil {
		t.Error("a program that does not exist could take over")
	}
	if err := unix.Kill(first, 0); err != nil {
		t.Errorf("the worker has not survived it: %v", err)
	}
	t.Setenv(roleEnv, "1")
	link := filepath.Join(t.TempDir(), "new")
	if err := os.Symlink(os.Args[0], link); err != nil {
		t.Fatal(err)
	}
	if err := c.Try(link); err != nil {
		t.Fatal(err)
	}
	unix.Kill(first, unix.SIGKILL)
	pid, inherited := next()
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if inherited != 1 || !strings.HasPrefix(string(cmdline), link) {
		t.Errorf("worker %d (%s) has %d descriptors", pid, cmdline, inherited)
	}
}

// TestFallback: where the program does not serve, the one that did serves again.
func TestFallback(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "worker")
	copyFile(t, os.Args[0], program)
	_, next := run(t, "1", func(k *Keeper) { k.Binary, k.NoStandby = program, true })
	pid, _ := next()
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	copyFile(t, "/bin/false", program)
	unix.Kill(pid, unix.SIGKILL)
	if _, inherited := next(); inherited != 1 {
		t.Errorf("%d descriptors, want 1", inherited)
	}
}

// TestFallbackProgram: the program that served is executed, whatever descriptors it and its orders have.
func TestFallbackProgram(t *testing.T) {
	at := func(f *os.File, err error, number int) *os.File {
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Dup3(int(f.Fd()), number, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		moved := os.NewFile(uintptr(number), f.Name())
		t.Cleanup(func() { moved.Close() })
		return moved
	}
	program, err := os.Open("/bin/true")
	good := at(program, err, 501)
	null, err := os.Open(os.DevNull)
	orders := at(null, err, 500)
	k := &Keeper{good: good, fallback: true}
	c, err := k.exec(k.program(), orders)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.wait(); err != nil {
		t.Error(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package qlock

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func image(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.img")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// qemu runs a real QEMU with the image open until the returned function is called.
func qemu(t *testing.T, options ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command("qemu-system-x86_64",
		append([]string{"-nodefaults", "-display", "none", "-qmp", "stdio", "-m", "16"}, options...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err) // `make deps` installs it
	}
	stop = func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(stop)
	// It answers when everything is open; its greeting comes before that.
	io.WriteString(in, `{"execute": "qmp_capabilities"}`+"\n")
	for lines := bufio.NewScanner(out); ; {
		if !lines.Scan() {
			t.Fatal("QEMU did not start")
		}
		if strings.Contains(lines.Text(), `"return"`) {
			break
		}
	}
	go io.Copy(io.Discard, out)
	return stop
}

// tool runs one of QEMU's tools, and returns what it complains about.
func tool(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err == nil {
		return ""
	}
	return string(out)
}

// device is how a guest has its disk: with a block node alone, nothing is in use.
func device(options ...string) []string {
	return append([]string{"-machine", "q35", "-S", "-device", "virtio-blk-pci,drive=a"}, options...)
}

func TestProbeSeesQEMU(t *testing.T) {
	path := image(t)
	f := open(t, path, os.O_RDONLY)
	for name, tc := range map[string]struct {
		options string
		want    func(Held) bool
	}{
		"read-write": {"", func(h Held) bool { return h.Used&Write != 0 && h.Unshared&Write != 0 }},
		"read-only":  {",read-only=on", func(h Held) bool { return h.Used&Write == 0 && h.Used&ConsistentRead != 0 && h.Unshared&Write != 0 }},
		"no locking": {",file.locking=off", func(h Held) bool { return !h.Any() }},
	} {
		stop := qemu(t, device("-blockdev", "driver=raw,node-name=a,file.driver=file,file.filename="+path+tc.options)...)
		got, err := Probe(f)
		if err != nil {
			t.Fatal(err)
		}
		if !tc.want(got) {
			t.Errorf("QEMU %s: %+v", name, got)
		}
		stop()
		if got, err = Probe(f); err != nil || got.Any() {
			t.Errorf("after QEMU has gone: %+v, %v", got, err)
		}
	}
}

// A backing file is read, never written: so its reader's locks are told from a writer's.
func TestProbeBackingFile(t *testing.T) {
	base := image(t)
	top := filepath.Join(filepath.Dir(base), "top.qcow2")
	if out := tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top); out != "" {
		t.Fatal(out)
	}
	qemu(t, device("-blockdev", "driver=qcow2,node-name=a,file.driver=file,file.filename="+top)...)
	got, err := Probe(open(t, base, os.O_RDONLY))
	if err != nil || got.Used&ConsistentRead == 0 || got.Used&(Write|Resize) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTakeAgainstQEMU(t *testing.T) {
	path := image(t)
	f := open(t, path, os.O_RDWR)
	stop := qemu(t, device("-blockdev", "driver=raw,node-name=a,file.driver=file,file.filename="+path)...)
	for _, need := range []Need{Writing, Reading} {
		_, err := Take(f, need)
		var c *Conflict
		if !errors.Is(err, ErrHeld) || !errors.As(err, &c) || c.Held.Used&Write == 0 {
			t.Errorf("%+v beside a VM: %v", need, err)
		}
		if err != nil && !strings.Contains(err.Error(), "write") {
			t.Errorf("the message does not say what is locked: %v", err)
		}
	}
	stop()
	for _, need := range []Need{Writing, Reading} {
		l, err := Take(f, need)
		if err != nil {
			t.Fatalf("%+v: what a refused Take had locked is left, or the VM's: %v", need, err)
		}
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	}

	// Two VMs reading one image share it with a reader, and not with a writer.
	qemu(t, device("-blockdev", "driver=raw,node-name=a,read-only=on,file.driver=file,file.filename="+path)...)
	if l, err := Take(f, Reading); err != nil {
		t.Error("reading what a VM reads:", err)
	} else {
		l.Release()
	}
	if _, err := Take(f, Writing); !errors.Is(err, ErrHeld) {
		t.Error("writing what a VM reads:", err)
	}
}

func TestTakeKeepsQEMUOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.qcow2")
	if out := tool("qemu-img", "create", "-q", "-f", "qcow2", path, "1M"); out != "" {
		t.Fatal(out)
	}
	f := open(t, path, os.O_RDWR)
	write := func() string { return tool("qemu-io", "-f", "qcow2", "-c", "write 0 4k", path) }
	read := func() string { return tool("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 4k", path) }
	info := func() string { return tool("qemu-img", "info", path) }
	for _, tc := range []struct {
		name              string
		need              *Need
		write, read, info string // what QEMU complains about; empty: it works
	}{
		{"nothing", nil, "", "", ""},
		{"reading", &Reading, `Failed to get "write" lock`, "", ""},
		{"writing", &Writing, `Failed to get "consistent read" lock`, `Failed to get "consistent read" lock`, `Failed to get shared "write" lock`},
		{"nothing again", nil, "", "", ""},
	} {
		var l *Lock
		if tc.need != nil {
			var err error
			if l, err = Take(f, *tc.need); err != nil {
				t.Fatal(err)
			}
		}
		for _, try := range []struct {
			what string
			run  func() string
			want string
		}{{"write", write, tc.write}, {"read", read, tc.read}, {"info", info, tc.info}} {
			got := try.run()
			if (got == "") != (try.want == "") || !strings.Contains(got, try.want) {
				t.Errorf("%s while %s is locked: %q, want %q", try.what, tc.name, got, try.want)
			}
		}
		if l != nil {
			l.Release()
		}
	}
}

func TestTakeTwice(t *testing.T) {
	path := image(t)
	first, second := open(t, path, os.O_RDWR), open(t, path, os.O_RDWR)
	for _, tc := range []struct {
		a, b Need
		ok   bool
	}{{Writing, Writing, false}, {Writing, Reading, false}, {Reading, Writing, false}, {Reading, Reading, true}} {
		a, err := Take(first, tc.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Take(second, tc.b)
		if (err == nil) != tc.ok {
			t.Errorf("%+v beside %+v: %v", tc.b, tc.a, err)
		}
		if err == nil {
			b.Release()
		}
		a.Release()
	}
}

func TestTakeNeedsADescriptorForReading(t *testing.T) {
	if _, err := Take(open(t, image(t), os.O_WRONLY), Writing); err == nil || errors.Is(err, ErrHeld) {
		t.Error(err)
	}
}

// A lock on the whole file is some other program's.
func TestProbeIgnoresWholeFileLocks(t *testing.T) {
	path := image(t)
	f, other := open(t, path, os.O_RDONLY), open(t, path, os.O_RDWR)
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &l); err != nil {
		t.Fatal(err)
	}
	if h, err := Probe(f); err != nil || h.Any() {
		t.Errorf("%+v, %v", h, err)
	}
}

func BenchmarkProbe(b *testing.B) {
	path := filepath.Join(b.TempDir(), "a.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		if _, err := Probe(f); err != nil {
			b.Fatal(err)
		}
	}
}

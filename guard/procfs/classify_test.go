// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"imgward/test/need"
)

// program copies a program of the host under another name, and returns its path.
func program(t testing.TB, name, of string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	src, err := exec.LookPath(of)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// process is a started program that the test ends.
type process struct {
	*exec.Cmd
	in  io.WriteCloser
	out *os.File
}

// start runs a program with pipes for input and output.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(name, args...), out: r}
	p.Stdout, p.Stderr = w, os.Stderr
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		p.in.Close()
		p.Process.Kill()
		p.Wait()
		r.Close()
	})
	return p
}

// hear waits for a line of the program's.
func (p *process) hear(t testing.TB) string {
	t.Helper()
	buf := make([]byte, 256)
	n, err := p.out.Read(buf)
	if err != nil {
		t.Fatalf("%s said nothing: %v", p.Path, err)
	}
	return string(buf[:n])
}

// awaitExe waits until a process executes the program that it is to be.
func awaitExe(t testing.TB, pid int, base string) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		if e, err := (FS{Root: "/proc"}).Exe(pid); err == nil && filepath.Base(e.Path) == base {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("process %d never became %s", pid, base)
}

func classifier() *Classifier { return &Classifier{FS: FS{Root: "/proc"}} }

// listed says whether a process is what it is by its executable's inode.
func listed(t testing.TB, c *Classifier, pid int) bool {
	t.Helper()
	p, err := c.Classify(pid)
	if err != nil {
		t.Fatal(err)
	}
	return p.Listed
}

func kindOf(t testing.TB, c *Classifier, pid int) Kind {
	t.Helper()
	p, err := c.Classify(pid)
	if err != nil {
		t.Fatal(err)
	}
	return p.Kind
}

func TestClassifyByExecutable(t *testing.T) {
	vmm := program(t, "qemu-system-x86_64", "cat")
	c := classifier()
	c.VMMs = []string{filepath.Dir(vmm) + "/qemu-system-*"}

	p := start(t, vmm)
	got, err := c.Classify(p.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if got.Kind != VMM || !got.Listed || got.PID != p.Process.Pid || got.Start == 0 || got.Exe != vmm || got.Comm != "qemu-system-x86" {
		t.Errorf("the VMM is %+v", got)
	}
	impostor := start(t, program(t, "qemu-system-x86_64", "cat"))
	if k := kindOf(t, c, impostor.Process.Pid); k != Outsider {
		t.Errorf("a program of that name in another directory is %v, want an outsider", k)
	}
	self := start(t, "bash", "-c", "exec -a "+vmm+" cat")
	awaitExe(t, self.Process.Pid, "cat")
	if k := kindOf(t, c, self.Process.Pid); k != Outsider {
		t.Errorf("a program that only calls itself so is %v, want an outsider", k)
	}
}

// TestClassifyAligned: a program is known as aligned by where it is, not by its name.
func TestClassifyAligned(t *testing.T) {
	known := program(t, "qemu-img", "cat")
	c := classifier()
	c.Aligned = []string{known}
	for path, want := range map[string]bool{known: true, program(t, "qemu-img", "cat"): false} {
		p := start(t, path)
		if got, err := c.Classify(p.Process.Pid); err != nil || got.Aligned != want || got.Kind != Outsider {
			t.Errorf("%s is %+v (%v), want an outsider, aligned: %v", path, got, err, want)
		}
	}
}

func TestClassifyNoticesExec(t *testing.T) {
	vmm := program(t, "qemu-kvm", "cat")
	c := classifier()
	c.VMMs = []string{vmm}
	p := start(t, "/bin/sh", "-c", "echo ready; read x; exec "+vmm)
	p.hear(t)
	if k := kindOf(t, c, p.Process.Pid); k != Outsider {
		t.Fatalf("the shell is %v", k)
	}
	io.WriteString(p.in, "go\necho\n")
	p.hear(t) // cat repeats the second line: it runs
	if k := kindOf(t, c, p.Process.Pid); k != VMM {
		t.Errorf("after exec it is %v, want a VMM at once", k)
	}
	if got, err := c.Recent(p.Process.Pid); err != nil || got.Kind != VMM {
		t.Errorf("Recent says %+v, %v", got, err)
	}
}

func TestClassifyUpgradedVMM(t *testing.T) {
	vmm := program(t, "qemu-kvm", "cat")
	p := start(t, vmm)
	if err := os.Remove(vmm); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vmm, []byte("the next version"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := classifier()
	c.VMMs = []string{vmm}
	if k := kindOf(t, c, p.Process.Pid); k != VMM {
		t.Errorf("a VMM whose package was upgraded is %v", k)
	}
}

func TestClassifyDeletedImpostor(t *testing.T) {
	need.Have(t, need.Root)
	vmm := program(t, "qemu-kvm", "cat")
	if err := os.Chown(vmm, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	p := start(t, vmm)
	if err := os.Remove(vmm); err != nil {
		t.Fatal(err)
	}
	c := classifier()
	c.VMMs = []string{vmm}
	if listed(t, c, p.Process.Pid) {
		t.Error("an ordinary user's deleted program is listed")
	}
}

// A VMM is evidence wherever it lies, whatever runs it and whatever it is called; that makes it no listed one.
func TestUnlistedVMMs(t *testing.T) {
	c := classifier()
	c.VMMNames = []string{"qemu-system-*", "firecracker"}
	machine := `
import fcntl, os, sys
vm = fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), 0xae01, 0)
print("ready", flush=True)
sys.stdin.read()`
	for name, tc := range map[string]struct {
		args []string
		want bool
	}{
		"QEMU in /opt":            {[]string{program(t, "qemu-system-riscv64", "cat")}, true},
		"QEMU that was renamed":   {[]string{program(t, "qemu-system-x86_64.dpkg-old", "cat")}, true},
		"a jailed firecracker":    {[]string{program(t, "firecracker", "cat")}, true},
		"whoever holds a machine": {[]string{"python3", "-c", machine}, true},
		"anybody":                 {[]string{program(t, "vmm", "cat")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.args[0] == "python3" {
				need.KVM(t)
			}
			p := start(t, tc.args[0], tc.args[1:]...)
			if tc.args[0] != "python3" {
				io.WriteString(p.in, "ready\n")
			}
			p.hear(t)
			got, err := c.Classify(p.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			if is := c.RunsVM(got); is != tc.want || got.Listed {
				t.Errorf("%v, %+v", is, got)
			}
			if again, err := c.Classify(p.Process.Pid); err != nil || (again.Kind == VMM) != tc.want {
				t.Errorf("not remembered: %+v, %v", again, err)
			}
		})
	}
}

// In a mount namespace of one's own, any program can have the path of a VMM.
func TestClassifyOtherMountNamespace(t *testing.T) {
	need.Have(t, need.Root, need.Mounting)
	vmm, other := program(t, "qemu-kvm", "cat"), program(t, "other", "cat")
	c := classifier()
	c.VMMs = []string{vmm}
	p := start(t, "unshare", "-m", "sh", "-c", `mount --bind "$0" "$1" && exec "$1"`, other, vmm)
	io.WriteString(p.in, "ready\n")
	p.hear(t)
	got, err := c.Classify(p.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if got.Exe != vmm || got.Listed || got.Kind != VMM { // a container's VMM is evidence, too
		t.Errorf("the impostor is %+v, want an unlisted VMM with the path %s", got, vmm)
	}
}

func TestClassifyManagersChildren(t *testing.T) {
	manager, vmm := program(t, "libvirtd", "dash"), program(t, "qemu-kvm", "dash")
	c := classifier()
	c.Managers, c.VMMs = []string{manager}, []string{vmm}

	// manager → sh → cat, and manager → vmm → cat
	p := start(t, manager, "-c", `exec 3<&0; sh -c 'cat <&3 & echo $!; wait' & "$0" -c 'cat <&3 & echo $!; wait' & wait`, vmm)
	if k := kindOf(t, c, p.Process.Pid); k != Manager {
		t.Fatalf("the manager is %v", k)
	}
	kinds := map[Kind]int{}
	lines := bufio.NewScanner(p.out)
	for len(kinds) < 2 && lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		awaitExe(t, pid, "cat")
		kinds[kindOf(t, c, pid)]++
	}
	if kinds[Manager] != 1 || kinds[Outsider] != 1 {
		t.Errorf("the grandchildren are %v, want one manager and one outsider (the guest's)", kinds)
	}
}

func TestClassifyTrustedCgroup(t *testing.T) {
	c := classifier()
	for _, tc := range []struct {
		group string
		globs []string
		want  bool
	}{
		{"/system.slice/backup.service", []string{"/system.slice/backup.service"}, true},
		{"/system.slice/backup.service/helper", []string{"/system.slice/backup*"}, true},
		{"/user.slice/backup.service", []string{"/system.slice/*"}, false},
		{"/", []string{"*", "/*"}, false},
	} {
		if got := belowAny(tc.globs, tc.group); got != tc.want {
			t.Errorf("group %s below %v: %v, want %v", tc.group, tc.globs, got, tc.want)
		}
	}
	if c.FS.inCgroup(os.Getpid(), nil) {
		t.Error("no globs, and yet trusted")
	}
}

func TestClassifyGone(t *testing.T) {
	p := start(t, "/bin/true")
	p.hearEnd()
	if _, err := classifier().Classify(p.Process.Pid); err != ErrGone {
		t.Errorf("a zombie is classified: %v", err)
	}
	p.Wait()
	if _, err := classifier().Classify(p.Process.Pid); err != ErrGone {
		t.Errorf("a process that has ended is classified: %v", err)
	}
}

// hearEnd waits until the program has closed its output, and a moment more until it is a zombie.
func (p *process) hearEnd() {
	io.Copy(io.Discard, p.out)
	for {
		if s, err := (FS{Root: "/proc"}).Stat(p.Process.Pid); err != nil || s.Gone() {
			return
		}
	}
}

func TestObservationsAreBounded(t *testing.T) {
	var s observations
	for tid := range 5 * maxObservations {
		s.put(tid, observation{start: uint64(tid)})
	}
	if len(s.known) > maxObservations {
		t.Errorf("%d threads are remembered", len(s.known))
	}
	if got, ok := s.get(5*maxObservations - 1); !ok || got.start != 5*maxObservations-1 {
		t.Error("the last one is forgotten")
	}
}

func BenchmarkClassify(b *testing.B) {
	c := classifier()
	pid := os.Getpid()
	b.Run("recent", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Recent(pid); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("checked", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Classify(pid); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unknown", func(b *testing.B) {
		for b.Loop() {
			c.seen.known = nil
			if _, err := c.Classify(pid); err != nil {
				b.Fatal(err)
			}
		}
	})
}

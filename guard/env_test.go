// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard/libvirt"
	"imgward/guard/policy"
	"imgward/guard/procfs"
	"imgward/guard/qlock"
	"imgward/test/need"
)

// host is a scratch host: its own status directory, and programs that count as VMM, manager and trusted because the
// policy says so.
type host struct {
	t      testing.TB
	dir    string
	status string
	config Config
	logged lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newHost(t testing.TB) *host {
	t.Helper()
	need.Have(t, need.Root) // as the daemon
	h := &host{t: t, dir: t.TempDir()}
	h.status = filepath.Join(h.dir, "run/libvirt/qemu")
	p := policy.Default()
	p.Processes = policy.Processes{
		VMMs: []string{h.program("vmm"), h.program("other-vmm")}, Managers: []string{h.program("manager")},
		Trusted: []string{h.program("trusted")},
	}
	h.program("outsider")
	h.config = Config{
		Policy: p, ViewRoot: h.dir, PoolDirs: []string{},
		StatusDirs:     []libvirt.Dir{{Path: h.status, Driver: "qemu"}},
		SaveDirs:       []libvirt.Dir{{Path: filepath.Join(h.dir, "save"), Driver: "qemu"}},
		SnapshotDir:    filepath.Join(h.dir, "snapshot"),
		DefinitionDirs: []libvirt.Dir{{Path: filepath.Join(h.dir, "etc"), Driver: "qemu"}},
		Log:            slog.New(slog.NewTextHandler(&h.logged, nil)),
	}
	return h
}

// program makes a copy of cat(1), which reads until its input ends.
func (h *host) program(name string) string {
	path := filepath.Join(h.dir, "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cat, err := os.ReadFile("/bin/cat")
	h.must(err)
	h.must(os.MkdirAll(filepath.Dir(path), 0o755))
	h.must(os.WriteFile(path, cat, 0o755))
	return path
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) guard() *Guard {
	h.t.Helper()
	g, err := New(h.config)
	h.must(err)
	h.t.Cleanup(func() { g.Close() })
	return g
}

// process is a running program, as an opener or as a caller.
type process struct {
	Process
	end func()
}

// run starts one of the programs with files open from descriptor 3 on.
func (h *host) run(name string, files ...*os.File) *process {
	h.t.Helper()
	cmd := exec.Command(h.program(name))
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	h.must(err)
	out, err := cmd.StdoutPipe()
	h.must(err)
	h.must(cmd.Start())
	var once sync.Once
	p := &process{end: func() { once.Do(func() { cmd.Process.Kill(); cmd.Wait() }) }}
	h.t.Cleanup(p.end)
	io.WriteString(in, "x")
	_, err = out.Read(make([]byte, 1)) // its echo: from now on it is that program, and not the fork of this one
	h.must(err)
	stat, err := procfs.FS{Root: "/proc"}.Stat(cmd.Process.Pid)
	h.must(err)
	p.Process = Process{PID: stat.ID, Start: stat.Start, Comm: stat.Comm}
	return p
}

func (p *process) opener(write bool) Opener {
	return Opener{Process: Process{PID: p.PID, Start: p.Start}, Write: write} // as after a take-over
}

func (h *host) image(name string) string {
	path := filepath.Join(h.dir, name)
	h.must(os.MkdirAll(filepath.Dir(path), 0o755))
	h.must(os.WriteFile(path, make([]byte, 1<<16), 0o600))
	return path
}

func (h *host) id(path string) ID {
	id, err := HostDirect{}.Lookup(path)
	h.must(err)
	return id
}

// domain writes a status file as libvirt does, by rename.
func (h *host) domain(name string, pid int, images ...string) {
	h.domainXML(name, statusFile(name, pid, images...))
}

func (h *host) domainXML(name string, text []byte) {
	h.must(os.MkdirAll(h.status, 0o755))
	path := filepath.Join(h.status, name+".xml")
	h.must(os.WriteFile(path+".new", text, 0o600))
	h.must(os.Rename(path+".new", path))
}

func statusFile(name string, pid int, images ...string) []byte {
	return fmt.Appendf(nil, "<domstatus state='running' reason='booted' pid='%d'>%s</domstatus>", pid, definition(name, images...))
}

func definition(name string, images ...string) []byte {
	text := fmt.Appendf(nil, "<domain type='kvm'><name>%s</name><uuid>0-%s</uuid><devices>", name, name)
	for i, image := range images {
		text = fmt.Appendf(text, "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='vd%c'/></disk>", image, 'a'+i)
	}
	return append(text, "</devices></domain>"...)
}

// request is a question about an image by a caller.
func (h *host) request(op Op, path string, caller *process, openers ...Opener) *Request {
	name, err := filepath.Rel(h.dir, path)
	h.must(err)
	r := &Request{
		Op: op, Image: h.id(path), Openers: openers,
		Path: func() string { return name },
		Open: func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) },
		Exists: func(name string) bool {
			_, err := os.Lstat(filepath.Join(filepath.Dir(path), name))
			return err == nil
		},
	}
	if caller != nil {
		r.TID = caller.PID
	}
	return r
}

// lock takes QEMU's lock for writing in this process, or those bytes.
func (h *host) lock(path string, bytes ...int64) through {
	f := h.open(path, os.O_RDWR)
	if len(bytes) == 0 {
		bytes = []int64{101}
	}
	for _, b := range bytes {
		l := unix.Flock_t{Type: unix.F_RDLCK, Start: b, Len: 1}
		h.must(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l))
	}
	return through{f}
}

// through is a descriptor on which the view has taken locks for an opener.
type through struct{ f *os.File }

func (f through) through(o Opener) Opener {
	o.Locked, o.Locks = true, func() (l Locks) {
		l.Own, l.Exclusive, _ = qlock.OwnFD(int(f.f.Fd()))
		l.Others, _ = qlock.ProbeFD(int(f.f.Fd()))
		return l
	}
	return o
}

// open opens an image for a program to inherit.
func (h *host) open(path string, flags int) *os.File {
	f, err := os.OpenFile(path, flags, 0)
	h.must(err)
	h.t.Cleanup(func() { f.Close() })
	return f
}

var background = context.Background()

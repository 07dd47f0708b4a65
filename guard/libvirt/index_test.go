// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imgward/test/need"
)

// run is a directory of status files, and an index of it.
type run struct {
	*testing.T
	dir   string
	index *Index
}

func newRun(t *testing.T, session bool) *run {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "libvirt/qemu")
	return &run{t, dir, New(Config{Dirs: []Dir{{Path: dir, Driver: "qemu", Session: session}}})}
}

func (r *run) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *run) mkdir() { r.must(os.MkdirAll(r.dir, 0o755)) }

func statusText(name, image string) string {
	return fmt.Sprintf("<domstatus state='running' pid='7'><domain><name>%s</name><devices><disk type='file'><source file='%s'/>"+
		"<target dev='vda'/></disk></devices></domain></domstatus>", name, image)
}

// write puts a file in place as libvirt does.
func (r *run) write(name, text string) {
	path := filepath.Join(r.dir, name)
	r.must(os.WriteFile(path+".new", []byte(text), 0o600))
	r.must(os.Rename(path+".new", path))
}

// expect refreshes, and compares what changed: "name path", "-name", "name blind", "name error".
func (r *run) expect(want ...string) {
	r.Helper()
	changes, err := r.index.Refresh(context.Background())
	r.must(err)
	r.compare(changes, want...)
}

func (r *run) compare(changes []Change, want ...string) {
	r.Helper()
	got := []string{}
	for _, c := range changes {
		name := strings.TrimSuffix(filepath.Base(c.Path), ".xml")
		switch {
		case c.Domain == nil:
			got = append(got, "-"+name)
		case c.Domain.Blind:
			got = append(got, name+" blind")
		case c.Err != nil:
			got = append(got, name+" error")
		default:
			got = append(got, c.Domain.Name+" "+c.Domain.Images[0].Path)
		}
	}
	sort.Strings(got)
	sort.Strings(want)
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.Error(diff)
	}
}

// settle waits until the directory's stamp tells all.
func (r *run) settle() {
	time.Sleep(granule + 5*time.Millisecond)
	r.expect()
}

func TestIndexFollowsFiles(t *testing.T) {
	r := newRun(t, false)
	r.expect() // it does not exist yet
	r.mkdir()
	r.expect()
	r.write("a.xml", statusText("a", "/1"))
	r.write("b.xml", statusText("b", "/2"))
	r.must(os.WriteFile(filepath.Join(r.dir, "c.xml.new"), []byte("<half"), 0o600))
	r.must(os.WriteFile(filepath.Join(r.dir, "qemu.pid"), []byte("1"), 0o600))
	r.expect("a /1", "b /2")
	r.expect()
	r.settle()
	r.write("a.xml", statusText("a", "/3"))
	r.expect("a /3")
	r.must(os.Remove(filepath.Join(r.dir, "b.xml")))
	r.expect("-b")
	r.must(os.RemoveAll(r.dir))
	r.expect("-a")
	r.mkdir()
	r.write("a.xml", statusText("a", "/4"))
	r.expect("a /4")
}

// Two changes within one tick of the clock leave the directory's stamp as it was after the first.
func TestIndexSeesChangesOfOneTick(t *testing.T) {
	r := newRun(t, false)
	r.mkdir()
	r.write("a.xml", statusText("a", "/0"))
	r.expect("a /0")
	for i := 1; i < 300; i++ {
		image := fmt.Sprint("/", i)
		r.write("a.xml", statusText("a", image))
		r.expect("a " + image)
	}
}

func TestIndexSettles(t *testing.T) {
	r := newRun(t, false)
	r.mkdir()
	r.write("a.xml", statusText("a", "/0"))
	r.expect("a /0")
	d := r.index.dirs[r.dir]
	if d.current() {
		t.Error("a directory that was just changed is taken for settled")
	}
	r.settle()
	if !d.current() {
		t.Error("a directory that was left alone is read again")
	}
}

func TestIndexEditInPlace(t *testing.T) {
	r := newRun(t, false)
	r.mkdir()
	r.write("a.xml", statusText("a", "/1"))
	r.expect("a /1")
	r.settle()
	edit := func(image string) {
		r.must(os.WriteFile(filepath.Join(r.dir, "a.xml"), []byte(statusText("a", image)), 0o600))
	}
	edit("/2")
	r.index.MarkStale(filepath.Join(r.dir, "a.xml"))
	r.expect("a /2")
	edit("/3")
	r.index.MarkAllStale()
	r.expect("a /3")
}

// A file that cannot be read keeps what it said; one of which nothing is known may mean any image.
func TestIndexUnreadable(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"cut off":       func(path string) error { return os.WriteFile(path, []byte(statusText("a", "/1")[:50]), 0o600) },
		"empty":         func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"huge":          func(path string) error { return os.Truncate(path, MaxFile+1) },
		"a FIFO":        func(path string) error { os.Remove(path); return syscall.Mkfifo(path, 0o600) },
		"a directory":   func(path string) error { os.Remove(path); return os.Mkdir(path, 0o700) },
		"a loop":        func(path string) error { os.Remove(path); return os.Symlink("a.xml", path) },
		"a link away":   func(path string) error { os.Remove(path); return os.Symlink("/etc/passwd", path) },
		"a device":      func(path string) error { os.Remove(path); return syscall.Mknod(path, syscall.S_IFCHR|0o600, 0) },
		"another's XML": func(path string) error { return os.WriteFile(path, []byte("<network/>"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRun(t, false)
			r.mkdir()
			r.write("a.xml", statusText("a", "/1"))
			r.write("b.xml", statusText("b", "/2"))
			r.expect("a /1", "b /2")
			path := filepath.Join(r.dir, "a.xml")
			if err := spoil(path); errors.Is(err, syscall.EPERM) {
				need.Skip(t, "not root, or no CAP_MKNOD: no device can be made")
			} else {
				r.must(err)
			}
			r.index.MarkStale(path)
			r.expect("a error")
			if p := r.index.Problems(); len(p) != 1 || p[0].Path != path || p[0].Blind {
				t.Errorf("the problems are %+v", p)
			}
			fresh := &run{t, r.dir, New(r.index.config)}
			fresh.expect("a blind", "b /2")
			if p := fresh.index.Problems(); len(p) != 1 || !p[0].Blind {
				t.Errorf("the problems are %+v", p)
			}
			r.must(os.RemoveAll(path))
			r.write("a.xml", statusText("a", "/3"))
			r.expect("a /3")
			fresh.expect("a /3")
			if p := fresh.index.Problems(); len(p) != 0 {
				t.Errorf("the problems are %+v", p)
			}
		})
	}
}

// What makes a file readable again does not always show in its directory.
func TestIndexReadableAgain(t *testing.T) {
	r := newRun(t, false)
	r.mkdir()
	path := filepath.Join(r.dir, "a.xml")
	r.must(os.WriteFile(path, []byte("<half"), 0o600))
	r.expect("a blind")
	r.settle()
	r.must(os.WriteFile(path, []byte(statusText("a", "/1")), 0o600))
	r.expect("a /1")
}

func TestReaddir(t *testing.T) {
	dir := t.TempDir()
	want := map[string]uint64{}
	for i := range 3000 { // more than one buffer
		name := fmt.Sprintf("%d-%s", i, strings.Repeat("x", i%200))
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		st, err := stampPath(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want[name] = st.ino
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := map[string]uint64{}
	if err := readdir(int(f.Fd()), func(name []byte, ino uint64) {
		if string(name) != "." && string(name) != ".." {
			got[string(name)] = ino
		}
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzEachEntry(f *testing.F) {
	f.Add([]byte("12345678abcdefgh\x18\x00\x08name\x00"))
	f.Fuzz(func(t *testing.T, records []byte) { eachEntry(records, func([]byte, uint64) {}) })
}

func TestIndexUnreadableDirectory(t *testing.T) {
	r := newRun(t, false)
	r.must(os.MkdirAll(filepath.Dir(r.dir), 0o755))
	r.must(os.WriteFile(r.dir, nil, 0o600))
	r.expect("qemu blind")
	r.expect()
	r.must(os.Remove(r.dir))
	r.expect("-qemu")
}

func TestIndexSessionsAreNotTrusted(t *testing.T) {
	r := newRun(t, true)
	r.mkdir()
	r.write("a.xml", "<broken")
	r.write("b.xml", statusText("b", "/2")+strings.Repeat(" ", maxSessionFile))
	for _, c := range r.refresh() {
		if c.Domain != nil {
			t.Errorf("an ordinary user's broken file makes %+v", c.Domain)
		}
	}
	for i := range 2 * maxSessionFiles {
		r.write(fmt.Sprint("c", i, ".xml"), statusText("c", "/3"))
	}
	r.refresh()
	if n := len(r.index.dirs[r.dir].files); n > maxSessionFiles+2 {
		t.Errorf("%d files of an ordinary user are kept", n)
	}
}

func (r *run) refresh() []Change {
	changes, err := r.index.Refresh(context.Background())
	r.must(err)
	return changes
}

func TestIndexContextEnds(t *testing.T) {
	r := newRun(t, false)
	r.mkdir()
	r.write("a.xml", statusText("a", "/1"))
	r.expect("a /1")
	r.settle()
	r.must(os.WriteFile(filepath.Join(r.dir, "a.xml"), []byte(statusText("a", "/2")), 0o600))
	r.index.MarkStale(filepath.Join(r.dir, "a.xml"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	changes, err := r.index.Refresh(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// What was read in time came with the error; the mark of anything else was not lost.
	r.compare(append(changes, r.refresh()...), "a /2")
}

func TestIndexGlobs(t *testing.T) {
	top := t.TempDir()
	x := New(Config{Dirs: []Dir{{Path: top + "/*/libvirt", Driver: "qemu"}}})
	for _, user := range []string{"1000", "1001"} {
		r := &run{t, filepath.Join(top, user, "libvirt"), x}
		r.expect()
		r.mkdir()
		r.write("a.xml", statusText("of"+user, "/"+user))
		r.expect("of" + user + " /" + user)
	}
	r := &run{t, "", x}
	r.must(os.RemoveAll(filepath.Join(top, "1000")))
	r.expect("-a")
}

func TestPools(t *testing.T) {
	run, etc := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(run, "active.xml", "<poolstate><pool type='dir'><name>active</name><target><path>/active</path></target></pool></poolstate>")
	write(etc, "active.xml", "<pool type='dir'><name>active</name><target><path>/elsewhere</path></target></pool>")
	write(etc, "idle.xml", "<pool type='dir'><name>idle</name><target><path>/idle</path></target></pool>")
	write(etc, "broken.xml", "<pool>")
	p := Pools{Dirs: []string{run, etc}}
	for pool, want := range map[string]string{"active": "/active/v", "idle": "/idle/v", "broken": "", "none": "", "../x": "", "": ""} {
		if got, ok := p.Path(pool, "v"); got != want || ok != (want != "") {
			t.Errorf("pool %q: %q, %v", pool, got, ok)
		}
	}
}

// A volume of a pool that is not there yet is looked for again, though nothing changes in the status directory.
func TestIndexFindsVolumesLater(t *testing.T) {
	r := newRun(t, false)
	pools := t.TempDir()
	r.index = New(Config{Dirs: []Dir{{Path: r.dir}}, PoolDirs: []string{pools}})
	r.mkdir()
	r.write("a.xml", "<domstatus><domain><name>a</name><devices><disk type='volume'><source pool='p' volume='v'/>"+
		"<target dev='vda'/></disk></devices></domain></domstatus>")
	if c := r.refresh(); len(c) != 1 || len(c[0].Domain.Images) != 0 {
		t.Fatalf("%+v", c)
	}
	time.Sleep(granule + 5*time.Millisecond)
	r.must(os.WriteFile(filepath.Join(pools, "p.xml"), []byte("<pool><target><path>/p</path></target></pool>"), 0o600))
	r.expect("a /p/v")
}

func TestWatcher(t *testing.T) {
	r := newRun(t, false)
	w, err := NewWatcher()
	r.must(err)
	defer w.Close()
	changed := make(chan struct{}, 1)
	go w.Run(context.Background(), r.index, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	hear := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(60 * time.Second):
			t.Fatalf("%s is not noticed", what)
		}
		w.Follow(r.index.Dirs())
	}
	r.refresh()
	w.Follow(r.index.Dirs())
	r.must(os.Mkdir(filepath.Dir(r.dir), 0o755))
	hear("a directory above")
	r.must(os.Mkdir(r.dir, 0o755))
	hear("the directory")
	r.write("a.xml", statusText("a", "/1"))
	hear("a file")
	r.expect("a /1")
	r.settle()
	r.must(os.WriteFile(filepath.Join(r.dir, "a.xml"), []byte(statusText("a", "/2")), 0o600))
	for deadline := time.Now().Add(60 * time.Second); ; {
		if c := r.refresh(); len(c) > 0 && c[len(c)-1].Domain.Images != nil && c[len(c)-1].Domain.Images[0].Path == "/2" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("an edit in place is not noticed")
		}
		time.Sleep(time.Millisecond)
	}
	r.must(os.RemoveAll(filepath.Dir(r.dir)))
	hear("the end")
	r.expect("-a")
}

func TestNearest(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir + "/a/b": dir, dir: dir, dir + "/*/libvirt/qemu": dir, "/none/at/all": "/", "relative/none": ".",
	} {
		if got := nearest(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

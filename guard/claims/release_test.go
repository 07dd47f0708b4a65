// SPDX-License-Identifier: Apache-2.0

package claims

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/libvirt"
	"imgward/guard/second"
	"imgward/test/need"
)

// nobody keeps nothing.
type nobody struct{}

func (nobody) Keep(string, int) error { return nil }
func (nobody) Drop(string)            {}

// fleet is a host of its own, with domains that its status files name, and a guard that claims.
type fleet struct {
	t      testing.TB
	dir    string
	status string
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	need.Have(t, need.Root, need.Mounting, need.Loops)
	f := &fleet{t: t, dir: t.TempDir()}
	f.status = filepath.Join(f.dir, "run")
	f.must(os.Mkdir(f.status, 0o755))
	f.must(unix.Mount("tmpfs", f.status, "tmpfs", 0, "mode=755")) // as /run is
	t.Cleanup(func() { f.must(unix.Unmount(f.status, unix.MNT_DETACH)) })
	return f
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// domain writes a status file as libvirt does.
func (f *fleet) domain(name string, pid int, disks ...string) {
	f.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "<domstatus state='running' pid='%d'><domain type='kvm'><name>%s</name><devices>", pid, name)
	for i, d := range disks {
		kind, attr := "file", "file"
		if strings.HasPrefix(d, "/dev/") {
			kind, attr = "block", "dev"
		}
		fmt.Fprintf(&b, "<disk type='%s' device='disk'><driver name='qemu' type='raw'/><source %s='%s'/><target dev='vd%c'/></disk>", kind, attr, d, 'a'+i)
	}
	b.WriteString("</devices></domain></domstatus>")
	path := filepath.Join(f.status, name+".xml")
	f.must(os.WriteFile(path+".new", []byte(b.String()), 0o600))
	f.must(os.Rename(path+".new", path))
}

// device is a loop device over a new file.
func (f *fleet) device(name string) string {
	f.t.Helper()
	file := filepath.Join(f.dir, name)
	f.must(os.WriteFile(file, make([]byte, 1<<20), 0o600))
	return f.loop(file)
}

func (f *fleet) loop(file string, args ...string) string {
	f.t.Helper()
	out, err := exec.Command("losetup", append(args, "-f", "--show", file)...).Output()
	f.must(err)
	device := strings.TrimSpace(string(out))
	f.t.Cleanup(func() { f.must(exec.Command("losetup", "-d", device).Run()) })
	return device
}

// vmm is a process that stands for one.
func (f *fleet) vmm() (pid int, end func()) {
	f.t.Helper()
	c := exec.Command("sleep", "1000000")
	f.must(c.Start())
	end = func() { _ = c.Process.Kill(); _ = c.Wait() }
	f.t.Cleanup(end)
	return c.Process.Pid, end
}

// guard claims until the test ends.
func (f *fleet) guard() *second.Driver {
	f.t.Helper()
	kick := second.NewKick()
	g, err := guard.New(guard.Config{
		StatusDirs: []libvirt.Dir{{Path: f.status, Driver: "qemu"}}, DefinitionDirs: []libvirt.Dir{}, SaveDirs: []libvirt.Dir{},
		PoolDirs: []string{}, SnapshotDir: filepath.Join(f.dir, "none"), Changed: kick.Soon,
	})
	f.must(err)
	d := second.Start(&second.Config{Log: slog.New(slog.DiscardHandler), Guard: g, Keeper: nobody{}}, []second.Maker{Maker()}, kick)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() { d.Run(ctx, func() { close(ready) }); close(ended) }()
	f.t.Cleanup(func() {
		cancel()
		<-ended
		f.must(d.Remove())
		g.Close()
	})
	<-ready
	return d
}

// exclusive opens a device for this process alone.
func exclusive(device string) error {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// until waits for a device to be as it should, and says how long that took.
func (f *fleet) until(device string, want error) time.Duration {
	f.t.Helper()
	began := time.Now()
	for exclusive(device) != want {
		if time.Since(began) > time.Minute {
			f.t.Fatalf("%s: %v, not %v", device, exclusive(device), want)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

// TestRelease: a claim ends with the domain's process and when its status file names the device no more, and lasts while another
// domain uses the device. A process that has ended before the guard looks is nobody.
func TestRelease(t *testing.T) {
	f := newFleet(t)
	shared, detached, gone := f.device("shared"), f.device("detached"), f.device("gone")
	first, endFirst := f.vmm()
	other, endOther := f.vmm()
	f.domain("first", first, shared, detached)
	f.domain("second", other, shared)
	dead, end := f.vmm()
	end()
	f.domain("dead", dead, gone)
	f.guard()
	for device, want := range map[string]error{shared: unix.EBUSY, detached: unix.EBUSY, gone: nil} {
		if err := exclusive(device); err != want {
			t.Errorf("%s: %v, not %v", device, err, want)
		}
	}
	f.domain("first", first, shared)
	f.until(detached, nil)
	endFirst()
	f.domain("third", other, detached) // so the end was seen
	f.until(detached, unix.EBUSY)
	if err := exclusive(shared); err != unix.EBUSY {
		t.Errorf("a device that another domain uses: %v", err)
	}
	endOther()
	f.until(shared, nil)
	f.until(detached, nil)
}

// BenchmarkRelease prints how long a device stays claimed after its use has ended: by the end of the process, and by a status
// file, beside 10,000 other domains.
func BenchmarkRelease(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkRelease(b, n) })
	}
}

func benchmarkRelease(b *testing.B, n int) {
	f := newFleet(b)
	pid, _ := f.vmm()
	for i := range n {
		image := filepath.Join(f.dir, fmt.Sprintf("vm%d.img", i))
		f.must(os.WriteFile(image, []byte("x"), 0o600))
		f.domain(fmt.Sprintf("vm%d", i), pid, image)
	}
	var devices []string
	for i := range 5 {
		devices = append(devices, f.device(fmt.Sprintf("disk%d", i)))
	}
	d := f.guard()
	var ended, detached []time.Duration
	var took time.Duration
	for b.Loop() {
		vm, end := f.vmm()
		f.domain("vm", vm, devices...)
		f.until(devices[0], unix.EBUSY)
		f.domain("vm", vm, devices[1:]...)
		detached = append(detached, f.until(devices[0], nil))
		f.until(devices[1], unix.EBUSY)
		end()
		for _, d := range devices[1:] {
			ended = append(ended, f.until(d, nil))
		}
		_, t := d.Declared()
		took = max(took, t)
	}
	for what, list := range map[string][]time.Duration{"the process ended": ended, "its status file was written": detached} {
		slices.Sort(list)
		b.Logf("after %s: free within %v, %v at worst", what, list[len(list)/2], list[len(list)-1])
	}
	b.Logf("a declaration took %v", took)
}

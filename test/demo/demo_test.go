// SPDX-License-Identifier: Apache-2.0

// Package demo tells imgward's story on a real running virtual machine, and fails if anything is not as told:
// `make demo`.
package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/guest/wire"
	"imgward/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// story is what the demo is about: the host, and the machine that runs the datacenter.
type story struct {
	t    *testing.T
	host *harness.Host
	vm   *harness.Guest
	sums map[string]string // of what each disk held when the machine was copied
}

func TestDemo(t *testing.T) {
	s := begin(t)
	s.protect()
	s.accident()
	s.why()
	s.evacuated()
	s.asMeant()
	s.stopped()
	s.copied()
	s.end()
	s.elsewhere()
	say("That was all real: QEMU, libvirt and the kernel's FUSE. Nothing is left behind.")
}

// begin boots a guest with two disks, in a scratch directory.
func begin(t *testing.T) *story {
	h := harness.New(t)
	disk1, disk2 := h.Qcow2(t, "vmname-disk1.qcow2", 64*harness.MiB), h.Blank(t, "vmname-disk2.img", 40*harness.MiB)
	say("A host with one virtual machine, “rhevm”. Its second disk is a database.")
	vm := h.Boot(t, "rhevm",
		harness.Disk{Target: "vda", File: disk1, Format: "qcow2"}, harness.Disk{Target: "vdb", File: disk2})
	s := &story{t, h, vm, map[string]string{}}
	vm.StartWriting(t, "vdb")
	s.shell("virsh list --name", "rhevm")
	s.shell("ls -sh", "vmname-disk2.img")
	return s
}

func (s *story) protect() {
	say("imgward mounts a view over the directory. The running machine goes on as it was.")
	s.shell("imgward mount --log ../imgward.log .", "")
	s.shell("findmnt -n -o TARGET,FSTYPE -T . | sed 's|.*/||'", "fuse.imgward")
}

func (s *story) accident() {
	say("The administrator wants a third disk, and types 2 instead of 3.")
	s.shell("dd if=/dev/zero of=vmname-disk2.img bs=1k count=40000", "imgward: refused", "rhevm", "vmname-disk3.img",
		"Device or resource busy", "exit 1")
	s.shell("rm -f vmname-disk2.img", "Device or resource busy", "exit 1")
}

func (s *story) why() {
	say("Why?")
	s.shell("imgward status", "vmname-disk2.img", "rhevm", "vdb")
	s.shell("imgward who vmname-disk2.img", "rhevm", "vdb")
	s.shell("imgward check truncate vmname-disk2.img", "exit 3")
	p := s.vm.StopWriting(s.t, "vdb")
	s.vm.Agent.Healthy(s.t, "vda", "vdb")
	if s.t.Failed() {
		s.t.FailNow()
	}
	say("The database has made %d synced writes meanwhile, and every block reads back as written.", p.Fsyncs)
}

// evacuated copies the machine while it runs: when it stops, nobody may be able to start it again.
func (s *story) evacuated() {
	for _, disk := range []string{"vda", "vdb"} {
		s.sums[disk] = sum(s.t, s.vm, disk)
	}
	say("Its definition may be lost with its manager. imgcp copies the whole machine while it runs.")
	s.shell("imgcp domain --quiet rhevm ../evacuation", "")
	s.shell("ls ../evacuation/rhevm ../evacuation/rhevm/disks", "archive.json", "vmname-disk1.qcow2", "vmname-disk2.img")
	s.shell("virsh domblklist rhevm | sed \"s|$DIR/||\"", "vmname-disk1.qcow2", "vmname-disk2.img")
	s.vm.Agent.Healthy(s.t, "vda", "vdb")
}

// elsewhere starts the copy on another host.
func (s *story) elsewhere() {
	say("Another host. The machine starts there as it was, from the copy alone.")
	other := s.host.Other(s.t, "other")
	s.shell("imgcp report --verify ../evacuation", "verified", "rhevm")
	socket := func(h *harness.Host) string { return "/run/" + filepath.Base(h.Dir) + "-rhevm.sock" }
	s.on(other, fmt.Sprintf("imgcp restore --quiet --map %s=%s --map %s=%s %s/evacuation/rhevm", s.host.Dir, other.Dir, socket(s.host), socket(other),
		s.host.Dir))
	s.on(other, "virsh -q list --all --name", "rhevm")
	vm := &harness.Guest{Domain: other.Defined(s.t, harness.Spec{Name: "rhevm", Guest: true})}
	vm.Start(s.t)
	vm.Agent = vm.NewAgent(s.t)
	for _, disk := range []string{"vda", "vdb"} {
		if now := sum(s.t, vm, disk); now != s.sums[disk] {
			s.t.Fatalf("%s holds something else on the other host: %s, was %s", disk, now, s.sums[disk])
		}
	}
	s.on(other, "virsh -q domstate rhevm", "running")
	say("It runs, and both disks hold what they held.")
	vm.Shutdown(s.t)
}

// sum is what the guest reads from the first 32 MiB of a disk, in short.
func sum(t *testing.T, vm *harness.Guest, disk string) string {
	t.Helper()
	return vm.Agent.Do(t, wire.Request{Op: wire.OpSum, Disk: disk, Blocks: 32 * harness.BlocksPerMiB}).Sum
}

// on runs a command line on another host and shows both.
func (s *story) on(h *harness.Host, line string, expected ...string) {
	s.t.Helper()
	bin := filepath.Dir(harness.Imgward())
	r := h.Exec(s.t, "sh", "-c", "PATH="+bin+":$PATH; "+line)
	fmt.Printf("  other# %s\n", strings.ReplaceAll(line, s.host.Dir, "…"))
	for out := range strings.Lines(strings.TrimSpace(r.Stdout + r.Stderr)) {
		fmt.Printf("  %s\n", strings.ReplaceAll(strings.TrimRight(out, "\n"), s.host.Dir, "…"))
	}
	for _, want := range append(expected, "") {
		if r.Exit != 0 || !strings.Contains(r.Stdout, want) {
			s.t.Fatalf("not as told: wanted %q, exit %d", want, r.Exit)
		}
	}
}

func (s *story) asMeant() {
	say("What was meant is not hindered,")
	s.shell("dd if=/dev/zero of=vmname-disk3.img bs=1k count=40000 status=none && ls -s vmname-disk3.img", "vmname-disk3.img")
}

func (s *story) stopped() {
	say("and when the machine is off, its disks are files like any other: the same dd goes through.")
	s.shell("virsh shutdown rhevm --mode acpi", "")
	s.vm.WaitState(s.t, "shut off")
	s.shell("imgward who vmname-disk2.img", "exit 1")
	s.shell("dd if=/dev/zero of=vmname-disk2.img bs=1k count=40000 status=none", "")
}

func (s *story) copied() {
	say("imgcp copies images block for block, through the view, and asks before it destroys.")
	s.shell("imgcp vmname-disk1.qcow2 vmname-disk4.qcow2", "")
	s.shell("cmp vmname-disk1.qcow2 vmname-disk4.qcow2 && echo identical", "identical")
	s.shell("imgcp vmname-disk3.img vmname-disk4.qcow2", "exit 4")
}

func (s *story) end() {
	s.shell("cd .. && imgward umount images", "")
}

// shell runs a command line on a terminal, in the directory of images, shows both, and fails unless the screen shows every
// one of the expected parts. The exit status must be 0 unless "exit N" is among them.
func (s *story) shell(line string, expected ...string) {
	s.t.Helper()
	// Without polkit in the sandbox, virsh would say so at every call.
	script := `virsh() { command virsh -q "$@" 2>&1 | sed '/^Authorization not available/d'; }; cd "$DIR" && ` + line + `; code=$?; [ $code = 0 ] || echo "exit $code"`
	bin := strings.TrimSuffix(harness.Imgward(), "/imgward")
	screen := harness.OnTerminal(s.t, script, "DIR="+s.host.Images, "PATH="+bin+":"+os.Getenv("PATH"))
	screen = strings.ReplaceAll(screen, "\r\n", "\n")
	if _, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS); err == nil {
		line = "\x1b[1m" + line + "\x1b[0m" // bold, on a terminal
	}
	fmt.Printf("  images# %s\n", line)
	for _, out := range strings.Split(strings.TrimRight(screen, "\n"), "\n") {
		// What a progress bar leaves in the end. (The daemon, whose terminal this is not, ends its lines with \r itself.)
		out = strings.TrimRight(out, "\r")
		out = strings.TrimPrefix(out[strings.LastIndex(out, "\r")+1:], "\x1b[K")
		if strings.TrimSpace(out) != "" {
			fmt.Printf("  %s\n", strings.ReplaceAll(out, s.host.Images, "…/images"))
		}
	}
	failed := strings.Contains(screen, "exit ") && !strings.Contains(strings.Join(expected, "\n"), "exit ")
	failed = failed || strings.Contains(screen, "imgward: refused: imgcp") // it asks before it writes
	for _, want := range expected {
		if failed || !strings.Contains(screen, want) {
			s.t.Fatalf("not as told: wanted %q", expected)
		}
	}
}

func say(format string, args ...any) { fmt.Printf("\n"+format+"\n\n", args...) }

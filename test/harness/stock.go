// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgward/test/need"
)

// Stock is a guest on Debian's kernel for real machines: 6.1, which has no kernel passthrough and no FUSE_NOTIFY_RESEND, but
// device-mapper, NFS server and client, overlayfs, XFS, btrfs and an active BPF LSM. It is no domain: QEMU runs it directly,
// from an initramfs that carries what the test gives it, as root, and it ends with the script.
//
//	r := harness.StockKernel(t).With(harness.Imgward()).Modules("fuse", "loop").Run(`imgward --version`)
type Stock struct {
	t       testing.TB
	dir     string
	files   map[string]string // path in the guest → here
	modules []string
	disks   []string
	args    []string
	memory  int // MiB
	counts  bool
	patient time.Duration
}

// StockKernel is a guest with busybox and nothing else.
func StockKernel(t testing.TB) *Stock {
	t.Helper()
	need.Have(t, need.GuestKernel("stock"), need.Tools("qemu-system-x86_64", "busybox", "ldd"))
	return &Stock{t: t, dir: t.TempDir(), files: map[string]string{}, memory: 1024, patient: 10 * time.Minute}
}

// With carries programs in, each to /bin by its base name, with the shared libraries that it is linked with. A name without
// a slash is looked up in PATH.
func (s *Stock) With(programs ...string) *Stock {
	s.t.Helper()
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			s.t.Fatal(err)
		}
		s.files["/bin/"+filepath.Base(path)] = path
		for _, lib := range libraries(s.t, path) {
			s.files[lib] = lib
		}
	}
	return s
}

// File carries a file, or a directory with all below it, in to a path of the guest.
func (s *Stock) File(guest, here string) *Stock {
	s.files[guest] = here
	return s
}

// Modules loads modules of the kernel, by name, and before each what it depends on.
func (s *Stock) Modules(names ...string) *Stock {
	s.modules = append(s.modules, names...)
	return s
}

// Disk attaches a raw image, the first as /dev/vda.
func (s *Stock) Disk(image string) *Stock {
	s.disks = append(s.disks, "-drive", "if=virtio,format=raw,cache=unsafe,file="+strings.ReplaceAll(image, ",", ",,"))
	return s.Modules("virtio_pci", "virtio_blk")
}

// Args adds arguments of QEMU's, such as network cards.
func (s *Stock) Args(args ...string) *Stock {
	s.args = append(s.args, args...)
	return s
}

// Memory sets the guest's memory in MiB (default 1024). The initramfs with all that was carried in lives there, twice for a
// moment.
func (s *Stock) Memory(mib int) *Stock {
	s.memory = mib
	return s
}

// CountInstructions has the guest's clocks go by what its one CPU executes, a nanosecond for each instruction: how long something
// takes there is how many instructions it takes, however busy this machine is. A guest that waits loses no time by it.
func (s *Stock) CountInstructions() *Stock {
	s.counts = true
	return s
}

// Patience is how long the guest may take; longer, and the test fails (default ten minutes: it is emulated).
func (s *Stock) Patience(d time.Duration) *Stock {
	s.patient = d
	return s
}

// StockRun is a guest that runs.
type StockRun struct {
	s    *Stock
	args []string
	cmd  *exec.Cmd
	ctx  context.Context
}

// Run boots the guest, runs a shell script in it as root and returns what that said and its exit code. /proc, /sys, /dev,
// /run and /tmp are mounted, securityfs, debugfs, cgroup2 and bpffs at their places; lo is up.
func (s *Stock) Run(script string) Result {
	s.t.Helper()
	return s.Start(script).Wait()
}

// Start is Run for a test that does something meanwhile, such as run a second guest beside it. Wait must be called.
func (s *Stock) Start(script string) *StockRun {
	s.t.Helper()
	initrd := filepath.Join(s.dir, "initramfs")
	if err := s.pack(initrd, script); err != nil {
		s.t.Fatal("initramfs for the stock kernel: ", err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), s.patient)
	s.t.Cleanup(cancel)
	serial := func(name string) []string { return []string{"-serial", "file:" + filepath.Join(s.dir, name)} }
	machine := []string{"-accel", "tcg,thread=multi", "-smp", "2"}
	switch {
	case s.counts:
		machine = []string{"-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,sleep=off"}
	case accelerator() == "kvm":
		machine = []string{"-accel", "kvm", "-smp", "2"}
	}
	args := []string{"qemu-system-x86_64", "-cpu", "max", "-m", strconv.Itoa(s.memory), "-display", "none",
		"-no-reboot", "-nodefaults", "-kernel", need.Cache() + "/stock/vmlinux", "-initrd", initrd,
		"-append", cmdline + " rdinit=/init"}
	args = append(args, machine...)
	for _, name := range stockSerials {
		args = append(args, serial(name)...)
	}
	args = append(append(args, s.disks...), s.args...)
	run := &StockRun{s: s, args: args, ctx: ctx, cmd: exec.CommandContext(ctx, args[0], args[1:]...)}
	log, err := os.Create(filepath.Join(s.dir, "qemu.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	run.cmd.Stdout, run.cmd.Stderr = log, log
	if err := run.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { run.cmd.Process.Kill() })
	return run
}

// stockSerials are the guest's serial ports, ttyS0 first, as files here.
var stockSerials = []string{"console", "stdout", "stderr", "exit"}

// Wait waits for the script's end. It fails the test if the guest ended without one.
func (r *StockRun) Wait() Result {
	r.s.t.Helper()
	err := r.cmd.Wait()
	code, codeErr := strconv.Atoi(strings.TrimSpace(r.read("exit")))
	if err != nil || codeErr != nil {
		r.s.t.Fatalf("the guest did not come to its end: %v %v\n%s\nconsole:\n%s\nstdout:\n%s\nstderr:\n%s", err, context.Cause(r.ctx),
			r.read("qemu.log"), tail(r.read("console"), 40), tail(r.read("stdout"), 40), tail(r.read("stderr"), 40))
	}
	return Result{Args: []string{"script in the guest"}, Exit: code, Stdout: r.read("stdout"), Stderr: r.read("stderr")}
}

// Console is what the guest's kernel has said so far.
func (r *StockRun) Console() string { return r.read("console") }

func (r *StockRun) read(name string) string {
	b, err := os.ReadFile(filepath.Join(r.s.dir, name))
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(b)
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
	"imgward/test/need"
)

// guarded is a host whose block devices in use are claimed.
type guarded struct {
	*harness.Host
	log string
}

func guard(t *testing.T, h *harness.Host, args ...string) *guarded {
	t.Helper()
	g := &guarded{Host: h, log: filepath.Join(h.Dir, "guard.log")}
	if len(g.lines(t)) > 0 {
		g.stop(t) // one that an earlier test's mount started, for its domain had a block device
	}
	h.Exec(t, append([]string{harness.Imgward(), "guard", "--log", g.log}, args...)...).OK(t)
	t.Cleanup(func() {
		if len(g.lines(t)) > 0 {
			g.stop(t)
		}
	})
	return g
}

// stop ends the guard, of which nothing may be left.
func (g *guarded) stop(t *testing.T) {
	t.Helper()
	s := g.status(t)
	harness.Run(t, harness.Imgward(), "guard", "stop").OK(t)
	for _, pid := range []int{s.PID, s.KeeperPID} {
		harness.Until(t, fmt.Sprintf("process %d is gone", pid), func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	}
	if left, _ := filepath.Glob("/run/imgward/@*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// guardLine is any line of `imgward status --json` that is the guard's.
type guardLine struct {
	Type, Layer, Path, Left, Reason string
	PID                             int
	KeeperPID                       int `json:"keeper_pid"`
	Takeovers                       int
	Active                          bool
	Images                          int
	Declared                        float64 `json:"declare_seconds"`
	Uses                            []struct{ Domain, Target, Layer string }
}

func (g *guarded) lines(t *testing.T) (list []guardLine) {
	t.Helper()
	text := harness.Run(t, harness.Imgward(), "status", "--json").OK(t)
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		var l guardLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if slices.Contains([]string{"guard", "layer", "hold"}, l.Type) {
			list = append(list, l)
		}
	}
	return list
}

func (g *guarded) status(t *testing.T) guardLine {
	t.Helper()
	for _, l := range g.lines(t) {
		if l.Type == "guard" {
			return l
		}
	}
	t.Fatal("the guard does not run")
	return guardLine{}
}

// held says what the guard holds of a device; nil: nothing.
func (g *guarded) held(t *testing.T, device string) *guardLine {
	t.Helper()
	for _, l := range g.lines(t) {
		if l.Type == "hold" && l.Path == device && l.Left == "" {
			return &l
		}
	}
	return nil
}

func (g *guarded) waitHeld(t *testing.T, device string) {
	t.Helper()
	harness.Until(t, device+" is claimed", func() bool { return g.held(t, device) != nil })
}

func (g *guarded) waitFree(t *testing.T, device string) {
	t.Helper()
	harness.Until(t, device+" is let go of", func() bool { return g.held(t, device) == nil })
}

// loop is a loop device over a new file of the host.
func (g *guarded) loop(t *testing.T, name string, size int64, args ...string) (device, file string) {
	t.Helper()
	file = filepath.Join(g.Out, name)
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	return attachLoop(t, file, args...), file
}

func attachLoop(t *testing.T, file string, args ...string) string {
	t.Helper()
	device := harness.Run(t, append(append([]string{"losetup", "-f", "--show"}, args...), file)...).OK(t)
	t.Cleanup(func() {
		harness.Run(t, "losetup", "-d", device)
		harness.Until(t, device+" is detached", func() bool { // which is lazy
			_, err := os.Stat("/sys/block/" + filepath.Base(device) + "/loop/backing_file")
			return err != nil
		})
	})
	return device
}

// onDevices is the XML of a domain whose disks are block devices.
func onDevices(name string, devices ...string) string {
	var disks strings.Builder
	for i, d := range devices {
		fmt.Fprintf(&disks, `<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='%s'/><target dev='vd%c' bus='virtio'/></disk>`, d, 'a'+i)
	}
	return `<domain type='qemu'><name>` + name + `</name><memory unit='MiB'>64</memory>
		<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
		<controller type='scsi' model='virtio-scsi'/>` + // whose disks go without the guest's consent
		disks.String() + `</devices></domain>`
}

// create starts a domain on devices.
func (g *guarded) create(t *testing.T, name string, devices ...string) {
	t.Helper()
	g.Virsh(t, "create", g.WriteXML(t, name+".xml", onDevices(name, devices...))).OK(t)
	t.Cleanup(func() { g.Virsh(t, "destroy", name) })
}

// exclusive are the commands that destroy a block device, or mount it, and want it for themselves.
var exclusive = []string{
	"mkfs.ext4 -q -F $DEV", "mkfs.xfs -q -f $DEV", "wipefs -a $DEV", "mkswap $DEV", "pvcreate -ff -y --config devices/scan_lvs=1 $DEV",
	"mount $DEV $OUT/mnt", "mount -o ro $DEV $OUT/mnt",
}

// fill puts a file system onto a device, so that each of those commands would succeed.
func fill(t *testing.T, device string) {
	t.Helper()
	harness.Run(t, "mkfs.ext4", "-q", "-F", device).OK(t)
	harness.Run(t, "sync").OK(t)
}

func contents(t *testing.T, device string) string {
	t.Helper()
	return harness.Run(t, "sha256sum", device).OK(t)
}

// busy is what those commands make of EBUSY.
var busy = regexp.MustCompile(`(?i)busy|in use|exclusively`)

// refusedAll has each of the commands fail, and the device as it was.
func refusedAll(t *testing.T, h *harness.Host, device string) {
	t.Helper()
	before := contents(t, device)
	harness.Run(t, "mkdir", "-p", h.Out+"/mnt").OK(t)
	for _, script := range exclusive {
		r := harness.Sh(t, script, "DEV="+device, "OUT="+h.Out)
		if r.Exit == 0 || !busy.MatchString(r.Stdout+r.Stderr) {
			t.Errorf("%s: exit %d, and not for being busy: %s%s", script, r.Exit, r.Stdout, r.Stderr)
		}
	}
	if contents(t, device) != before {
		t.Fatalf("one of %q has changed the device", exclusive)
	}
}

// TestClaims: who wants a block device in use for himself is told EBUSY, and domains are unhindered.
func TestClaims(t *testing.T) {
	if harness.Native() {
		return
	}
	need.Have(t, need.Tools("pvcreate", "mkfs.xfs"))
	h := harness.New(t)
	g := guard(t, h)
	disk, file := g.loop(t, "disk.img", 32*MiB)
	second, _ := g.loop(t, "second.img", 32*MiB)
	fill(t, disk)
	fill(t, second)
	above := attachLoop(t, disk)
	readOnly := attachLoop(t, disk, "--read-only")

	g.create(t, "vm", disk)
	g.waitHeld(t, disk)
	g.waitHeld(t, above)
	if g.held(t, readOnly) != nil {
		t.Error("a read-only loop device is claimed, from which everybody may read")
	}
	if l := g.held(t, above); len(l.Uses) == 0 || l.Uses[0].Layer != disk {
		t.Errorf("%s is claimed by way of something else: %+v", above, l)
	}
	for _, device := range []string{disk, above} {
		refusedAll(t, h, device)
	}
	g.explained(t, disk)

	t.Run("attach and detach", func(t *testing.T) {
		g.Virsh(t, "attach-disk", "vm", second, "sda", "--targetbus", "scsi", "--sourcetype", "block", "--subdriver", "raw").OK(t)
		g.waitHeld(t, second)
		refusedAll(t, h, second)
		g.Virsh(t, "detach-disk", "vm", "sda").OK(t)
		g.waitFree(t, second)
		harness.Run(t, "wipefs", "-a", second).OK(t)
	})
	t.Run("blockcopy to a device", func(t *testing.T) {
		g.Virsh(t, "blockcopy", "vm", "vda", "--dest", second, "--blockdev", "--format", "raw", "--wait", "--reuse-external", "--transient-job").OK(t)
		g.waitHeld(t, second)
		refusedAll(t, h, second)
		g.Virsh(t, "blockjob", "vm", "vda", "--abort").OK(t)
		g.waitFree(t, second)
	})
	t.Run("snapshot", func(t *testing.T) {
		g.Virsh(t, "snapshot-create-as", "vm", "--disk-only", "--no-metadata", "--diskspec", "vda,file="+h.Image("over.qcow2")).OK(t)
		g.waitHeld(t, disk) // now a backing file
		refusedAll(t, h, disk)
		g.Virsh(t, "blockcommit", "vm", "vda", "--active", "--pivot", "--wait").OK(t)
		refusedAll(t, h, disk)
	})
	t.Run("an exception", func(t *testing.T) {
		harness.Run(t, harness.Imgward(), "allow", "--op", "write", "--for", "1m", "--reason", "test", disk).OK(t)
		g.waitFree(t, disk)
		harness.Run(t, "mount", "-o", "ro,noload", disk, h.Out+"/mnt").OK(t)
		harness.Run(t, "umount", h.Out+"/mnt").OK(t)
		id := strings.Fields(harness.Run(t, harness.Imgward(), "allow", "--list", disk).OK(t))[0]
		harness.Run(t, harness.Imgward(), "allow", "--revoke", strings.TrimSuffix(id, ":"), disk).OK(t)
		g.waitHeld(t, disk)
		refusedAll(t, h, disk)
		if events := harness.Run(t, harness.Imgward(), "events", disk).OK(t); !strings.Contains(events, "exception") {
			t.Errorf("the events say nothing of it:\n%s", events)
		}
	})
	t.Run("killed", func(t *testing.T) { g.killed(t, disk) })
	t.Run("upgrade", func(t *testing.T) {
		before := g.status(t)
		stop := watchExclusive(t, disk)
		harness.Run(t, harness.Imgward(), "upgrade", disk).OK(t)
		if after := g.status(t); after.Takeovers != before.Takeovers+1 {
			t.Errorf("%d take-overs, then %d", before.Takeovers, after.Takeovers)
		}
		stop(t)
	})
	t.Run("destroy", func(t *testing.T) {
		g.Virsh(t, "destroy", "vm").OK(t)
		began, tries := time.Now(), 0
		for { // a bounded wait: Until's
			tries++
			if r := harness.Run(t, "mkfs.ext4", "-q", "-F", disk); r.Exit == 0 {
				break
			} else if time.Since(began) > time.Minute {
				t.Fatalf("mkfs a minute after the end: %s", r.Stderr)
			}
		}
		t.Logf("mkfs.ext4 after virsh destroy: try %d, done after %v", tries, time.Since(began))
	})
	t.Run("a domain starts while somebody holds its disk", func(t *testing.T) {
		harness.Run(t, "mount", disk, h.Out+"/mnt").OK(t)
		defer harness.Run(t, "umount", h.Out+"/mnt")
		g.create(t, "vm", disk)
		harness.Until(t, "the guard says why it has left it alone", func() bool {
			return slices.ContainsFunc(g.lines(t), func(l guardLine) bool { return l.Path == disk && strings.Contains(l.Left, h.Out+"/mnt") })
		})
		g.Virsh(t, "destroy", "vm").OK(t)
	})
	t.Run("a VM without libvirt", func(t *testing.T) {
		vmm := bare(t, h, "ondevice", strings.Replace(bareDrive, "driver=file", "driver=host_device", 1)+`file.filename="$IMG"`, disk)
		g.waitHeld(t, disk)
		refusedAll(t, h, disk)
		vmm.Kill(t)
		g.waitFree(t, disk)
	})
	t.Run("a VMM that nobody knows, by its locks", func(t *testing.T) {
		unknown := filepath.Join(h.Out, "unknown")
		harness.Run(t, "cp", strings.TrimSpace(harness.Sh(t, "command -v qemu-io").OK(t)), unknown).OK(t)
		vmm := harness.Spawn(t, filepath.Join(h.Dir, "unknown.log"), unknown, "-f", "raw", "-c", "read 0 4k", "-c", "sleep 1000000", disk)
		g.waitHeld(t, disk)
		vmm.Kill(t)
		g.waitFree(t, disk)
	})
	g.create(t, "vm", disk)
	g.waitHeld(t, disk)
	g.stop(t)
	harness.Run(t, "wipefs", "-a", disk).OK(t)
	g.Virsh(t, "destroy", "vm").OK(t)
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	log, err := os.ReadFile(g.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "level=WARN") && !strings.Contains(line, "the worker died") || strings.Contains(line, "level=ERROR") && !strings.Contains(line, "the keeper died") {
			t.Errorf("the guard logged: %s", line)
		}
	}
}

// explained: who and check say that a claim holds the device, for whom, and how it is released.
func (g *guarded) explained(t *testing.T, device string) {
	t.Helper()
	r := harness.Run(t, harness.Imgward(), "who", device)
	for _, part := range []string{"vda (disk) of vm", "held by a claim", "imgward allow"} {
		if !strings.Contains(r.Stdout, part) {
			t.Errorf("who does not say %q:\n%s", part, r.Stdout)
		}
	}
	if r := harness.Run(t, harness.Imgward(), "check", "truncate", device); r.Exit != 3 || !strings.Contains(r.Stdout, "a claim refuses") {
		t.Errorf("check: exit %d: %s", r.Exit, r.Stdout)
	}
	if r := harness.Run(t, harness.Imgward(), "status").OK(t); !strings.Contains(r, device) || !strings.Contains(r, "claims: on") {
		t.Errorf("status does not show the claim:\n%s", r)
	}
}

// killed: worker and keeper die, one after the other, and nobody gets the device meanwhile.
func (g *guarded) killed(t *testing.T, device string) {
	t.Helper()
	stop := watchExclusive(t, device)
	for range 3 {
		before := g.status(t)
		if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		harness.Until(t, "a successor serves", func() bool { return g.status(t).PID != before.PID })
	}
	before := g.status(t)
	if err := syscall.Kill(before.KeeperPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "there is another keeper", func() bool { return g.status(t).KeeperPID != before.KeeperPID })
	before = g.status(t)
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "a successor serves", func() bool { return g.status(t).PID != before.PID })
	stop(t)
}

// watchExclusive tries all the time to get a device for itself, until stop, which fails the test if that worked.
func watchExclusive(t *testing.T, device string) (stop func(*testing.T)) {
	t.Helper()
	end, got := make(chan struct{}), make(chan [2]int)
	go func() {
		tries, worked := 0, 0
		for {
			select {
			case <-end:
				got <- [2]int{tries, worked}
				return
			case <-time.After(100 * time.Microsecond):
			}
			fd, err := syscall.Open(device, syscall.O_RDONLY|syscall.O_EXCL|syscall.O_CLOEXEC, 0)
			if tries++; err == nil {
				worked++
				syscall.Close(fd)
			}
		}
	}()
	return func(t *testing.T) {
		t.Helper()
		close(end)
		if n := <-got; n[1] > 0 {
			t.Errorf("%s was free at %d of %d tries", device, n[1], n[0])
		} else {
			t.Logf("%s was held at all of %d tries", device, n[0])
		}
	}
}

// TestClaimsByPolicy: a mount starts the second layer where its policy says so, once, and not where it says "off". Under "auto"
// a device that somebody unseen has locked, as a QEMU of another namespace has, is no reason to. The last umount ends what a mount has
// started, unless somebody has asked for it by itself since, or it has something to protect.
func TestClaimsByPolicy(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	image := filepath.Join(h.Dir, "locked.img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	locked, err := os.Open(attachLoop(t, image))
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	used := syscall.Flock_t{Start: 100, Len: 1}
	lock := func(kind int16) {
		used.Type = kind
		must(t, syscall.FcntlFlock(locked.Fd(), unix.F_OFD_SETLK, &used))
	}
	for _, c := range []struct {
		policy string
		runs   bool
	}{{`second-layer = "off"`, false}, {`second-layer = "auto"`, false}, {`second-layer = "claims"`, true}, {`second-layer = "strict"`, true}} {
		file := filepath.Join(h.Dir, "policy.toml")
		if err := os.WriteFile(file, []byte(c.policy+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		lock(unix.F_RDLCK)
		v := h.Mount(t, "-o", "policy="+file)
		g := &guarded{Host: h}
		if runs := len(g.lines(t)) > 0; runs != c.runs {
			t.Errorf("%s: the guard runs: %v", c.policy, runs)
		}
		byHand := c.policy == `second-layer = "claims"`
		if byHand {
			if r := harness.Run(t, harness.Imgward(), "guard"); r.Exit != 0 || !strings.Contains(r.Stderr, "runs already") {
				t.Errorf("a second one: exit %d: %s", r.Exit, r.Stderr)
			}
		}
		lock(unix.F_UNLCK) // or it would go on for that
		v.End(t)
		left := g.lines(t)
		// Another test's QEMU may have a device of the host locked meanwhile, which is something to protect.
		others := slices.ContainsFunc(left, func(l guardLine) bool { return l.Type == "hold" && l.Path != locked.Name() })
		if runs := len(left) > 0; runs != byHand && !others {
			t.Errorf("%s: the guard runs after the umount: %v", c.policy, runs)
		}
		if len(left) > 0 {
			g.stop(t)
		}
	}
}

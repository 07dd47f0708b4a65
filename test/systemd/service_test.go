// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const (
	images  = "/srv/images"
	service = "imgward@srv-images.service"
)

// view is what `imgward status --json` says of the view.
type view struct {
	PID         int
	Generation  int
	Passthrough bool
	LastPause   float64 `json:"last_pause_seconds"`
	Warnings    []string
}

func (b *booted) view(t *testing.T) (v view) {
	t.Helper()
	line, _, _ := strings.Cut(b.run(t, "imgward status --json "+images), "\n")
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return v
}

func (b *booted) journal() string {
	log, _ := b.try("journalctl --no-pager -o short-monotonic | tail -60")
	return log
}

// start protects the images, with a VM on one of them.
func (b *booted) start(t *testing.T) (vm string) {
	t.Helper()
	b.install(t)
	b.run(t, "mkdir "+images+" && truncate -s 1M "+images+"/vm.img "+images+"/other.img && systemctl start "+service)
	return b.run(t, `qemu-system-x86_64 -machine pc,accel=tcg -m 32 -S -display none -nodefaults -name rhevm -daemonize \
		-pidfile /run/vm.pid -drive if=none,id=d,format=raw,file=`+images+`/vm.img && cat /run/vm.pid`)
}

// An administrator's life with the unit: VMs and work through the view while workers are killed, an upgrade, an end
// that waits for the VM.
func TestUnit(t *testing.T) {
	b := boot(t)
	vm := b.start(t)
	refused := func(image string) {
		t.Helper()
		if out, err := b.try(": >" + images + "/" + image); err == nil || !strings.Contains(out, "busy") {
			t.Errorf("truncating %s: %v %s", image, err, out)
		}
	}
	refused("vm.img")
	b.run(t, ": >"+images+"/other.img")
	b.sandboxed(t)

	work := b.enter("sh", "-e", "-c", `while [ ! -e /run/enough ]; do
		dd if=/dev/zero of=$1/work.img bs=4k count=1 conv=fsync status=none; cp $1/work.img $1/copy.img; mv $1/copy.img $1/moved.img
		done`, "sh", images)
	said := &strings.Builder{}
	work.Stdout, work.Stderr = said, said
	if err := work.Start(); err != nil {
		t.Fatal(err)
	}
	first := b.mainPID(t, service)
	if v := b.view(t); v.PID != first || v.Generation != 1 || len(v.Warnings) > 0 {
		t.Errorf("at first: main process %d, %+v", first, v)
	}
	for range 5 {
		b.kill(t, "kill -9 %d")
	}
	// Nothing of the view is in the kernel's memory any more when it is killed: whoever looks at it has to wait.
	b.kill(t, "kill -STOP %[1]d; sleep 1.5; echo 3 >/proc/sys/vm/drop_caches; kill -9 %[1]d")
	refused("vm.img")
	if v := b.view(t); v.LastPause != 0 {
		t.Errorf("nobody knows when the worker was killed, and the pause is %v s", v.LastPause)
	}
	if out := b.run(t, "imgward upgrade"); !strings.Contains(out, " ms") {
		t.Errorf("the upgrade does not say how long it took: %s", out)
	}
	if v := b.view(t); v.Generation != 8 || len(v.Warnings) > 0 || v.LastPause <= 0 {
		t.Errorf("after six kills and an upgrade: %+v", v)
	}
	b.run(t, "touch /run/enough")
	if err := work.Wait(); err != nil {
		t.Errorf("the work beside the kills: %v: %s\n%s", err, said, b.journal())
	}
	refused("vm.img")

	if out, err := b.try("systemctl stop " + service); err == nil {
		t.Errorf("systemd stopped it: %s", out)
	}
	if out, err := b.try("imgward umount " + images); err == nil || !strings.Contains(out, "qemu-system") {
		t.Errorf("umount while the VM runs: %v %s", err, out)
	}
	refused("vm.img")
	b.run(t, "kill "+vm+"; while kill -0 "+vm+" 2>/dev/null; do sleep 0.02; done; imgward umount "+images)
	b.ended(t)
	b.run(t, ": >"+images+"/vm.img")

	// And again, until the host goes down.
	b.run(t, "systemctl start "+service)
	b.run(t, "printf '[Unit]\nConflicts="+service+"\n' >/run/systemd/system/down.target; systemctl daemon-reload; systemctl start down.target")
	b.ended(t)
}

// TestMetricsTimer: node_exporter finds the metrics, and a view that a boot mounts and that is not there.
func TestMetricsTimer(t *testing.T) {
	b := boot(t)
	b.install(t)
	file := "/var/lib/prometheus/node-exporter/imgward.prom"
	b.run(t, "mkdir -p "+images+" $(dirname "+file+") && systemctl start "+service+" imgward-metrics.timer")
	until(t, "the timer has the metrics written", func() bool {
		_, err := b.try(`grep -F 'imgward_view_up{view="` + images + `"} 1' ` + file)
		return err == nil
	}, b.journal)
	again := func() string { return b.run(t, "systemctl start imgward-metrics.service && cat "+file) }
	b.run(t, "systemctl enable "+service+" && imgward umount "+images)
	if got := again(); !strings.Contains(got, `imgward_view_up{view="`+images+`"} 0`) {
		t.Errorf("the unit is enabled, and nothing is protected:\n%s", got)
	}
	b.run(t, "systemctl disable "+service)
	if got := again(); strings.Contains(got, "imgward_view_up") {
		t.Errorf("nothing is to be protected:\n%s", got)
	}
	b.run(t, "systemctl stop imgward-metrics.timer")
}

// kill does something to the worker that ends it, and returns when a successor serves.
func (b *booted) kill(t *testing.T, command string) {
	t.Helper()
	before := b.view(t)
	b.run(t, fmt.Sprintf(command, before.PID))
	until(t, "a successor serves", func() bool {
		out, err := b.try("systemctl is-active " + service + " && timeout 5 imgward status --json " + images)
		return err == nil && !strings.Contains(out, fmt.Sprintf(`"pid":%d,`, before.PID))
	}, b.journal)
	if v := b.view(t); v.Generation != before.Generation+1 {
		t.Errorf("generation %d after %d", v.Generation, before.Generation)
	}
}

// ended looks for what a view leaves behind.
func (b *booted) ended(t *testing.T) {
	t.Helper()
	until(t, "the service has ended", func() bool { return b.property(t, service, "ActiveState") == "inactive" }, b.journal)
	// The second layer, which the unit wants, goes on.
	for _, check := range []string{"! grep fuse.imgward /proc/self/mountinfo", "! ls -d /run/imgward/[!@]*", "test -f " + images + "/vm.img"} {
		if out, err := b.try(check); err != nil {
			t.Errorf("%s: %s\n%s", check, out, b.journal())
		}
	}
	if n := b.property(t, service, "NFileDescriptorStore"); n != "0" {
		t.Errorf("systemd keeps %s descriptors", n)
	}
}

// sandboxed looks at the worker's process: what the unit asks for is really so.
func (b *booted) sandboxed(t *testing.T) {
	t.Helper()
	pid := b.mainPID(t, service)
	for what, check := range map[string]string{
		"it may not raise limits, nor load modules": "grep -q '^CapBnd:.*00000000a82802df$' /proc/%[1]d/status || { grep CapBnd /proc/%[1]d/status; false; }",
		"it gains no privileges":                    "grep -q '^NoNewPrivs:.*1$' /proc/%[1]d/status",
		"it has a system call filter":               "grep -q '^Seccomp:.*2$' /proc/%[1]d/status",
		"it is in a mount namespace of its own":     `test "$(readlink /proc/%[1]d/ns/mnt)" != "$(readlink /proc/1/ns/mnt)"`,
		"it sees no home directories":               "touch /home/x && ! ls /proc/%[1]d/root/home/x",
		"it cannot write to the host":               "grep -q ' / / ro' /proc/%[1]d/mountinfo",
	} {
		if out, err := b.try(fmt.Sprintf(check, pid)); err != nil {
			t.Errorf("%s: no: %s", what, out)
		}
	}
}

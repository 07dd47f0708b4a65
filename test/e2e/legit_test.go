package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"imgward/test/harness"
)

// legitMatrix is what a view must not hinder, on running and on idle images. Each entry must pass natively as well.
var legitMatrix = []struct {
	name string
	run  func(*testing.T, *harness.Host)
}{
	{"start, shutdown", startShutdown},
	{"reboot", reboot},
	{"reset", reset},
	{"destroy while writing", destroyWriting},
	{"suspend, resume", suspendResume},
	{"managedsave, start", managedSave},
	{"save, restore", saveRestore},

	{"hot-plug, unplug raw", func(t *testing.T, h *harness.Host) { hotplug(t, h, "raw") }},
	{"hot-plug, unplug qcow2", func(t *testing.T, h *harness.Host) { hotplug(t, h, "qcow2") }},
	{"attach, detach while off", attachOff},
	{"media change", mediaChange},

	{"internal snapshot, revert, delete", internalSnapshot},
	{"internal snapshot while off", internalSnapshotOff},
	{"external snapshot --disk-only", externalSnapshot},
	{"external snapshot --reuse-external", reuseExternal},
	{"external snapshot with memory", memorySnapshot},
	{"delete external snapshot", deleteExternal},

	{"blockcommit", func(t *testing.T, h *harness.Host) { commitMiddle(t, h) }},
	{"blockcommit --delete", func(t *testing.T, h *harness.Host) { commitMiddle(t, h, "--delete") }},
	{"blockcommit --active --pivot", func(t *testing.T, h *harness.Host) { commitActive(t, h) }},
	{"blockcommit --active --pivot --delete", func(t *testing.T, h *harness.Host) { commitActive(t, h, "--delete") }},
	{"blockcommit --active, abort", commitAbort},
	{"blockpull", func(t *testing.T, h *harness.Host) { pull(t, h, "") }},
	{"blockpull --base", func(t *testing.T, h *harness.Host) { pull(t, h, "base.qcow2") }},
	{"blockcopy --pivot", copyPivot},
	{"blockcopy, abort", copyAbort},
	{"blockcopy --finish --reuse-external", copyReuse},
	{"blockresize", blockResize},
	{"backup-begin push", backupPush},
	{"backup-begin pull", backupPull},
	{"checkpoint, incremental backup", backupIncremental},
	{"discard", discard},
	{"cache and io modes", cacheModes},

	{"volumes", volumes},
	{"vol-clone, vol-create-from", volumeClone},
	{"vol-upload, vol-download", volumeUpload},
	{"vol-wipe, vol-resize, vol-delete", volumeWipe},
	{"pool-refresh beside a guest", poolRefresh},
	{"undefine --remove-all-storage", removeAllStorage},

	{"readers of a running disk", readers},
	{"qemu-img on idle images", qemuImgIdle},
	{"file commands on idle images", idleCommands},
	{"chown, chmod, touch, setfattr, setfacl of a running disk", relabel},
	{"dynamic ownership", dynamicOwnership},
	{"shareable disk", shareable},
	{"one disk, two domains", lockedOut},
	{"shared backing file", sharedBacking},
	{"transient disk", transient},
	{"qemu-nbd and qemu-storage-daemon", otherVMMs},
}

func TestLegit(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	for _, c := range legitMatrix {
		t.Run(c.name, func(t *testing.T) { runLegit(t, h, v, c.run) })
	}
}

// TestLegitWithoutPassthrough is the same with all data going through the daemon.
func TestLegitWithoutPassthrough(t *testing.T) {
	if harness.Native() {
		return // there is only one mode
	}
	h := harness.New(t)
	v := h.Mount(t, "-o", "nopassthrough")
	for _, c := range legitMatrix {
		t.Run(c.name, func(t *testing.T) { runLegit(t, h, v, c.run) })
	}
}

// runLegit runs one entry. No refusal may have been given, up to the removal of its domains; and when they are gone,
// so must be what protected their images.
func runLegit(t *testing.T, h *harness.Host, v *harness.View, run func(*testing.T, *harness.Host)) {
	before := len(refusals(t, v))
	t.Cleanup(func() {
		for _, r := range refusals(t, v)[before:] {
			t.Errorf("hindered: %+v", r)
		}
		left, err := filepath.Glob(filepath.Join(h.Images, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				t.Errorf("idle again, but: %v", err)
			}
		}
	})
	run(t, h)
}

// unhindered runs f, during which no refusal may be given.
func unhindered(t *testing.T, v *harness.View, f func()) {
	t.Helper()
	before := len(refusals(t, v))
	f()
	for _, r := range refusals(t, v)[before:] {
		t.Errorf("hindered: %+v", r)
	}
}

// refusals lists the refusals so far; natively there are none.
func refusals(t *testing.T, v *harness.View) []harness.Refusal {
	t.Helper()
	if harness.Native() {
		return nil
	}
	return v.Refusals(t)
}

package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"imgward/test/harness"
)

// legit is something that a view must not hinder, on running or idle images. It must pass natively as well.
type legit struct {
	name string
	run  func(*testing.T, *harness.Host)
	// data: it moves enough of it to be worth a second run, with everything going through the daemon.
	data bool
}

var legitMatrix = []legit{
	{"start, shutdown", startShutdown, false},
	{"reboot", reboot, false},
	{"reset", reset, false},
	{"destroy while writing", destroyWriting, true},
	{"suspend, resume", suspendResume, false},
	{"managedsave, start", managedSave, true},
	{"managedsave-remove", managedSaveRemove, false},
	{"NVRAM and firmware", nvram, false},
	{"dump", coreDump, false},
	{"save, restore", saveRestore, false},

	{"hot-plug, unplug raw", func(t *testing.T, h *harness.Host) { hotplug(t, h, "raw") }, false},
	{"hot-plug, unplug qcow2", func(t *testing.T, h *harness.Host) { hotplug(t, h, "qcow2") }, true},
	{"attach, detach while off", attachOff, false},
	{"media change", mediaChange, false},

	{"internal snapshot, revert, delete", internalSnapshot, true},
	{"internal snapshot while off", internalSnapshotOff, false},
	{"external snapshot --disk-only", externalSnapshot, true},
	{"external snapshot --reuse-external", reuseExternal, false},
	{"external snapshot with memory", memorySnapshot, false},
	{"delete external snapshot", deleteExternal, false},

	{"blockcommit", func(t *testing.T, h *harness.Host) { commitMiddle(t, h) }, false},
	{"blockcommit --delete", func(t *testing.T, h *harness.Host) { commitMiddle(t, h, "--delete") }, false},
	{"blockcommit --active --pivot", func(t *testing.T, h *harness.Host) { commitActive(t, h) }, false},
	{"blockcommit --active --pivot --delete", func(t *testing.T, h *harness.Host) { commitActive(t, h, "--delete") }, true},
	{"blockcommit --active, abort", commitAbort, false},
	{"blockpull", func(t *testing.T, h *harness.Host) { pull(t, h, "") }, true},
	{"blockpull --base", func(t *testing.T, h *harness.Host) { pull(t, h, "base.qcow2") }, false},
	{"blockpull, abort", pullAbort, false},
	{"blockcommit --shallow, blockcopy --shallow", shallow, false},
	{"blockcopy --pivot", copyPivot, true},
	{"blockcopy, abort", copyAbort, false},
	{"blockcopy --finish --reuse-external", copyReuse, false},
	{"blockresize", blockResize, false},
	{"backup-begin push", backupPush, false},
	{"backup-begin pull", backupPull, true},
	{"checkpoint, incremental backup", backupIncremental, false},
	{"discard", discard, true},
	{"cache and io modes", cacheModes, true},

	{"volumes", volumes, false},
	{"vol-clone, vol-create-from", volumeClone, true},
	{"vol-upload, vol-download", volumeUpload, true},
	{"vol-wipe, vol-resize, vol-delete", volumeWipe, false},
	{"pool-refresh beside a guest", poolRefresh, false},
	{"undefine --remove-all-storage", removeAllStorage, false},

	{"readers of a running disk", readers, true},
	{"qemu-img on idle images", qemuImgIdle, true},
	{"file commands on idle images", idleCommands, true},
	{"chown, chmod, touch, setfattr, setfacl of a running disk", relabel, false},
	{"dynamic ownership", dynamicOwnership, false},
	{"AppArmor", appArmor, false},
	{"shareable disk", shareable, true},
	{"one disk, two domains", lockedOut, true},
	{"shared backing file", sharedBacking, false},
	{"transient disk", transient, false},
	{"qemu-nbd and qemu-storage-daemon", otherVMMs, true},
}

func TestLegit(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	for _, c := range legitMatrix {
		t.Run(c.name, func(t *testing.T) { runLegit(t, h, v, c.run) })
	}
}

// TestLegitWithoutPassthrough repeats what moves data, all of which then goes through the daemon.
func TestLegitWithoutPassthrough(t *testing.T) {
	if harness.Native() {
		return // there is only one mode
	}
	h := harness.New(t)
	v := h.Mount(t, "-o", "nopassthrough")
	for _, c := range legitMatrix {
		if c.data {
			t.Run(c.name, func(t *testing.T) { runLegit(t, h, v, c.run) })
		}
	}
}

// runLegit runs one entry. No refusal may have been given, up to the removal of its domains; and when they are gone,
// so must be what protected their images.
func runLegit(t *testing.T, h *harness.Host, v *harness.View, run func(*testing.T, *harness.Host)) {
	began := time.Now()
	t.Cleanup(func() {
		for _, r := range v.Refusals(t, began) {
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
	began := time.Now()
	f()
	for _, r := range v.Refusals(t, began) {
		t.Errorf("hindered: %+v", r)
	}
}

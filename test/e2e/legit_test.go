// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"imgward/test/harness"
	"imgward/test/need"
)

// legit is something that a view must not hinder, on running or idle images. It must pass natively as well.
type legit struct {
	name string
	run  func(*testing.T, *harness.Host)
	is   int
}

// What is said of an entry.
const (
	core  = 1 << iota // make test runs it; the others are left to make test-all
	data              // it moves enough to be worth a second run, with everything going through the daemon
	again             // make test runs it without passthrough and under the preset strict, too
)

// chosen are the entries of which all these flags are said: the first under make test-all, else the second.
func chosen(inFull, inCore int) []legit {
	flags := inCore
	if need.All() {
		flags = inFull
	}
	return slices.DeleteFunc(slices.Clone(legitMatrix), func(c legit) bool { return c.is&flags != flags })
}

var legitMatrix = []legit{
	{"start, shutdown", startShutdown, core},
	{"reboot", reboot, core},
	{"reset", reset, 0},
	{"destroy while writing", destroyWriting, core | data},
	{"suspend, resume", suspendResume, core},
	{"managedsave, start", managedSave, core | data | again},
	{"managedsave-remove", managedSaveRemove, 0},
	{"NVRAM and firmware", nvram, 0},
	{"dump", coreDump, 0},
	{"save, restore", saveRestore, core},

	{"hot-plug, unplug raw", func(t *testing.T, h *harness.Host) { hotplug(t, h, "raw") }, 0},
	{"hot-plug, unplug qcow2", func(t *testing.T, h *harness.Host) { hotplug(t, h, "qcow2") }, core | data},
	{"attach, detach while off", attachOff, core},
	{"media change", mediaChange, core},

	{"internal snapshot, revert, delete", internalSnapshot, core | data},
	{"internal snapshot while off", internalSnapshotOff, 0},
	{"external snapshot --disk-only", externalSnapshot, core | data | again},
	{"external snapshot --reuse-external", reuseExternal, 0},
	{"external snapshot with memory", memorySnapshot, 0},
	{"delete external snapshot", deleteExternal, core},

	{"blockcommit", func(t *testing.T, h *harness.Host) { commitMiddle(t, h) }, 0},
	{"blockcommit --delete", func(t *testing.T, h *harness.Host) { commitMiddle(t, h, "--delete") }, 0},
	{"blockcommit --active --pivot", func(t *testing.T, h *harness.Host) { commitActive(t, h) }, 0},
	{"blockcommit --active --pivot --delete", func(t *testing.T, h *harness.Host) { commitActive(t, h, "--delete") }, core | data},
	{"blockcommit --active, abort", commitAbort, 0},
	{"blockpull", func(t *testing.T, h *harness.Host) { pull(t, h, "") }, core | data},
	{"blockpull --base", func(t *testing.T, h *harness.Host) { pull(t, h, "base.qcow2") }, 0},
	{"blockpull, abort", pullAbort, 0},
	{"blockcommit --shallow, blockcopy --shallow", shallow, 0},
	{"blockcopy --pivot", copyPivot, core | data},
	{"blockcopy, abort", copyAbort, 0},
	{"blockcopy --finish --reuse-external", copyReuse, 0},
	{"blockresize", blockResize, core},
	{"backup-begin push", backupPush, 0},
	{"backup-begin pull", backupPull, core | data},
	{"checkpoint, incremental backup", backupIncremental, 0},
	{"discard", discard, data},
	{"cache and io modes", cacheModes, data},

	{"volumes", volumes, core},
	{"vol-clone, vol-create-from", volumeClone, data},
	{"vol-upload, vol-download", volumeUpload, core | data},
	{"vol-wipe, vol-resize, vol-delete", volumeWipe, core},
	{"pool-refresh beside a guest", poolRefresh, 0},
	{"undefine --remove-all-storage", removeAllStorage, core},

	{"readers of a running disk", readers, core | data},
	{"qemu-img on idle images", qemuImgIdle, core | data},
	{"file commands on idle images", idleCommands, core | data | again},
	{"chown, chmod, touch, setfattr, setfacl of a running disk", relabel, core},
	{"dynamic ownership", dynamicOwnership, core},
	{"AppArmor", appArmor, core},
	{"shareable disk", shareable, data},
	{"one disk, two domains", lockedOut, core | data},
	{"shared backing file", sharedBacking, 0},
	{"transient disk", transient, 0},
	{"qemu-nbd and qemu-storage-daemon", otherVMMs, core | data},
}

func TestLegit(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	for _, c := range chosen(0, core) {
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
	for _, c := range chosen(data, data|again) {
		t.Run(c.name, func(t *testing.T) { runLegit(t, h, v, c.run) })
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

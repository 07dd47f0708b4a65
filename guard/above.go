// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"imgward/guard/layers"
)

// A loop device over an image, and what stands above that: a domain whose disk it is, a mount, LVM, MD, swap.

// aboveUses are the uses of the loop devices over the image, and of what is made of them. They do not count against what
// goes into the image through the loop device itself: its kernel thread asks, which has no program, or no pid here.
func (q *question) aboveUses() []Use {
	if q.fileState().alone || (q.Op == OpFallocate || q.Op == OpWrite) && q.caller.Exe == "" {
		return nil
	}
	above := q.g.stack().Above(layers.ID(q.Image))
	return append(q.g.usesOfLayers(q.ctx, above), q.devicesAbove(above)...)
}

// devicesAbove is what the devices above the image serve but virtual machines.
func (q *question) devicesAbove(above []layers.Layer) (uses []Use) {
	for _, l := range above {
		for _, u := range q.deviceUses(l) {
			u.Layer = l.Path
			uses = append(uses, u)
		}
	}
	return uses
}

// deviceUses say what a block device serves but virtual machines: where it is mounted, that it is swap, what is made of it.
func (q *question) deviceUses(l layers.Layer) []Use {
	use := func(role Role, path string) []Use {
		return []Use{{Role: role, Evidence: EvidenceLayer, Path: path, Writable: true}}
	}
	if point := layers.MountedOn(q.g.config.ProcRoot, l.ID); point != "" {
		return use(RoleMount, point)
	}
	if q.isSwap(l.Path) {
		return use(RoleSwap, "")
	}
	if made := q.g.stack().HeldBy(l.ID); len(made) > 0 {
		return use(RoleMember, "/dev/"+made[0])
	}
	return nil
}

// isSwap says whether a device is used as swap; see swaps in proc_swaps(5).
func (q *question) isSwap(device string) bool {
	table, err := os.ReadFile(filepath.Join(q.g.config.ProcRoot, "swaps"))
	return err == nil && bytes.Contains(table, []byte("\n"+device+" "))
}

// layerReason is the clause for a use of what is above the image.
func layerReason(u Use) string {
	device := printable(u.Layer)
	switch {
	case u.Role == RoleMount:
		return fmt.Sprintf("it is the file of %s, which is mounted on %s", device, printable(u.Path))
	case u.Role == RoleSwap:
		return fmt.Sprintf("it is the file of %s, which is used as swap", device)
	case u.Role == RoleMember:
		return fmt.Sprintf("it is the file of %s, of which %s is made", device, printable(u.Path))
	}
	u.Layer = ""
	return fmt.Sprintf("it is the file of %s: %s", device, usedReason(u))
}

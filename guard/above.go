// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

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
	number := fmt.Sprintf("%d:%d", unix.Major(l.ID.Ino), unix.Minor(l.ID.Ino))
	if point := q.mountedOn(number); point != "" {
		return use(RoleMount, point)
	}
	if q.lineOf("swaps", func(f [][]byte) bool { return string(f[0]) == l.Path }) != nil {
		return use(RoleSwap, "")
	}
	if made, _ := filepath.Glob("/sys/dev/block/" + number + "/holders/*"); len(made) > 0 {
		return use(RoleMember, "/dev/"+filepath.Base(made[0]))
	}
	return nil
}

// mountedOn is where a device is mounted in this mount namespace; empty: nowhere.
func (q *question) mountedOn(number string) string {
	// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw (proc_pid_mountinfo(5))
	f := q.lineOf("self/mountinfo", func(f [][]byte) bool { return len(f) > 4 && string(f[2]) == number })
	if f == nil {
		return ""
	}
	return strings.ReplaceAll(string(f[4]), `\040`, " ")
}

// lineOf finds a line of a table in /proc, by its fields.
func (q *question) lineOf(table string, is func(fields [][]byte) bool) [][]byte {
	file, err := os.Open(filepath.Join(q.g.config.ProcRoot, table))
	if err != nil {
		return nil
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if f := bytes.Fields(lines.Bytes()); len(f) > 0 && is(f) {
			return f
		}
	}
	return nil
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

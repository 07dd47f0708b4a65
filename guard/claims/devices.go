// SPDX-License-Identifier: Apache-2.0

package claims

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/layers"
	"imgward/guard/policy"
	"imgward/guard/second"
)

// device is one that is to be claimed.
type device struct {
	id   layers.ID
	path string // in devtmpfs
	also string // as the evidence names it; empty: not at all
	uses []guard.Use
	// images are those in use for which it is to be claimed: itself, or what shares bytes with it.
	images []guard.ID
}

// cdroms is the major number of SCSI CD drives (Documentation/admin-guide/devices.txt). udev opens them with O_EXCL to see what
// is in there, and a medium that is read has nothing to lose.
const cdroms = 11

// wanted lists the devices that are declared to be in use, then those that share bytes with them.
func (l *Layer) wanted(d *second.Declaration) []device {
	if unprotected(l.config.Guard.Policy()) != "" {
		return nil
	}
	stack := l.stack.Once()
	var used, related []device
	for id, uses := range d.Uses {
		uses = slices.DeleteFunc(slices.Clone(uses), mountsItself)
		if id == (guard.ID{}) || len(uses) == 0 || excepted(layers.ID(id), d) {
			continue
		}
		if id.Dev == guard.BlockDevice {
			used = append(used, device{id: layers.ID(id), path: stack.Path(layers.ID(id)), also: uses[0].Path, uses: uses, images: []guard.ID{id}})
		}
		for _, o := range sharing(stack, layers.ID(id)) {
			if !excepted(o.ID, d) {
				related = append(related, device{id: o.ID, path: o.Path, uses: byWayOf(uses, pathOf(stack, id, uses)), images: []guard.ID{id}})
			}
		}
	}
	slices.SortFunc(related, func(a, b device) int { return strings.Compare(a.path, b.path) })
	return unite(stack, append(used, related...))
}

// mountsItself says whether a domain has the kernel claim a device for it: a container, whose file systems libvirt mounts
// after it has written the status file.
func mountsItself(u guard.Use) bool { return u.Role == guard.RoleFS }

// sharing lists the devices above an image, and those below that only a loop device keeps its bytes in. What device-mapper, MD
// and the like are made of they hold themselves. For a moment they do not, while one is exchanged for another: a path of a
// multipath device that comes back must find its place free.
func sharing(stack layers.Stack, id layers.ID) []layers.Layer {
	others := stack.Above(id)
	if id.IsDevice() {
		for _, b := range stack.Below(id) {
			if b.Exact && !stack.Partitioned(b.ID) {
				others = append(others, b)
			}
		}
	}
	return slices.DeleteFunc(others, func(o layers.Layer) bool { return !o.ID.IsDevice() })
}

// unite leaves out what cannot be written to, and lists each device once.
func unite(stack layers.Stack, all []device) []device {
	at := make(map[layers.ID]int, len(all))
	list := all[:0]
	for _, w := range all {
		if i, ok := at[w.id]; ok {
			list[i].uses = append(list[i].uses, w.uses...)
			list[i].images = append(list[i].images, w.images...)
			continue
		}
		if unix.Major(w.id.Ino) == cdroms || !stack.Writable(w.id) {
			continue
		}
		at[w.id] = len(list)
		list = append(list, w)
	}
	return list
}

func pathOf(stack layers.Stack, id guard.ID, uses []guard.Use) string {
	if id.Dev == guard.BlockDevice {
		return stack.Path(layers.ID(id))
	}
	return uses[0].Path
}

// byWayOf are uses of one layer as those of another.
func byWayOf(uses []guard.Use, path string) []guard.Use {
	list := slices.Clone(uses)
	for i := range list {
		if list[i].Layer == "" {
			list[i].Layer = path
		}
	}
	return list
}

// excepted says whether an exception lets somebody write to an image: while it lasts, its devices are let go of.
func excepted(id layers.ID, d *second.Declaration) bool {
	return slices.ContainsFunc(d.Exceptions, func(e guard.Exception) bool {
		return layers.ID(e.Image) == id && e.Ops&(policy.Write|policy.Truncate) != 0 && time.Now().Before(e.Expires)
	})
}

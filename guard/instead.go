// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"path"
	"strings"
)

// instead says what to do in place of what was refused: a sentence with a blank before it, or nothing.
func (x *explanation) instead() string {
	comm, sub := x.verdict.Caller.Comm, ""
	if comm == "qemu-img" && x.args != nil {
		sub = subcommand(x.args())
	}
	switch {
	case sub == "resize":
		return x.resize()
	case worksInPlace(comm, sub):
		return ""
	}
	if name := x.freeName(); name != "" {
		return fmt.Sprintf(" Next free name: %s.", printable(name))
	}
	return ""
}

// resize says how a disk in use is resized.
func (x *explanation) resize() string {
	for _, u := range x.verdict.Uses {
		if u.Domain != "" && u.Role == RoleDisk && u.Target != "" {
			return fmt.Sprintf(" To resize it while the VM runs: virsh blockresize %s %s SIZE.", printable(u.Domain), printable(u.Target))
		}
	}
	return " A disk in use is resized by its VM: virsh blockresize DOMAIN TARGET SIZE."
}

// subcommand is the first argument that is no option.
func subcommand(args []string) string {
	for _, a := range args[min(1, len(args)):] {
		if !strings.HasPrefix(a, "-") {
			return a
		}
	}
	return ""
}

// worksInPlace says whether a command changes a file that is there: then a name that no file has is of no use to it.
func worksInPlace(comm, sub string) bool {
	switch comm {
	case "qemu-img":
		return sub != "" && sub != "create" && sub != "convert" && sub != "dd"
	case "shred", "wipefs", "mke2fs", "mkswap", "fdisk", "cfdisk", "sfdisk", "gdisk", "sgdisk", "parted", "e2fsck",
		"xfs_repair", "resize2fs", "tune2fs", "losetup", "mount", "qemu-nbd", "blkdiscard":
		return true
	}
	return strings.HasPrefix(comm, "mkfs") || strings.HasPrefix(comm, "fsck")
}

// freeName is the name that the person may have meant: the next number that no file has yet. The accident that this
// program is about was a 2 in the place of a 3.
func (x *explanation) freeName() string {
	const tries = 200 // a look each, while the caller waits
	switch x.request.Op {
	case OpTruncate, OpOpenWrite, OpReplace, OpCopyInto:
	default:
		return ""
	}
	if x.request.Exists == nil || x.path == "" {
		return ""
	}
	name := path.Base(x.path)
	for range tries {
		name = nextName(name)
		if !x.request.Exists(name) {
			return name
		}
	}
	return ""
}

// SPDX-License-Identifier: Apache-2.0

// Package role names what an image is to whoever uses it, for all that speak of it: libvirt's files, image headers, the
// guard.
package role

// Role is what an image is to the domain that uses it.
type Role string

// The roles that domain XML and image headers give, and those that a loop device over the image may have.
const (
	Disk     Role = "disk"
	CDROM    Role = "cdrom"
	Floppy   Role = "floppy"
	Backing  Role = "backing"
	DataFile Role = "data-file"
	Mirror   Role = "mirror"
	Scratch  Role = "scratch"
	NVRAM    Role = "nvram"
	Loader   Role = "loader"
	Kernel   Role = "kernel"
	Initrd   Role = "initrd"
	DTB      Role = "dtb"
	Memory   Role = "memory"     // backs an NVDIMM
	FS       Role = "filesystem" // root or other file system of a container
	// SavedState is a file with the state of a saved domain, Snapshot one with the memory of a snapshot, whose name is the
	// use's target.
	SavedState Role = "saved-state"
	Snapshot   Role = "snapshot-memory"
	Mount      Role = "mount"  // a loop device over it is mounted
	Swap       Role = "swap"   // … is swap
	Member     Role = "member" // … is part of another device: LVM, MD
	Unknown    Role = "unknown"
)

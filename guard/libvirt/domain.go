// SPDX-License-Identifier: Apache-2.0

// Package libvirt reads libvirt's domain status files: which domain runs, as which process, with which images.
//
// libvirtd, virtqemud and their siblings keep one file NAME.xml for each running domain below /run/libvirt, written
// as NAME.xml.new and renamed (virXMLSaveFile in libvirt's src/util/virxml.c). The package never speaks to a daemon:
// the files are there when libvirtd is dead, hung or restarting, which is when they matter most.
package libvirt

import (
	"time"

	"imgward/guard/role"
)

// Image is one file, block device or directory that a domain uses.
type Image struct {
	Path     string // as the status file says it: an absolute path on the host
	Target   string // "vda"; empty for what is no disk
	Role     role.Role
	Format   string // as declared; "raw" where nothing is, as libvirt takes it
	Writable bool
	// Shareable: the domain lets others write to it as well.
	Shareable bool
}

// Domain is one domain as its status file describes it.
type Domain struct {
	Driver string // "qemu", "lxc", "libxl", "ch"
	Name   string
	UUID   string
	PID    int // of its VMM; 0 where the file does not say
	// Emulator is the program that the domain runs in, where the file names it: a path of the host.
	Emulator string
	State    string // "running", "paused", "shutoff", …
	Images   []Image
	// Written is the status file's modification time: the VMM was started before.
	Written time.Time
	// Session is set for a domain of an ordinary user, who may have written the file himself.
	Session bool
	// Blind is set while the file cannot be read or parsed and nothing is known from before: then the domain may be
	// using any image at all, and only Name (taken from the file's name), Driver and perhaps PID are known. Of a directory that
	// cannot be read, the Name is empty.
	Blind bool
}

// Running says whether the file's own state attribute means a domain that may have its images open. A state that is not
// known here counts as running. The words are those of virDomainStateTypeToString.
func (d *Domain) Running() bool {
	return d.State != "shutoff" && d.State != "crashed" && d.State != "nostate"
}

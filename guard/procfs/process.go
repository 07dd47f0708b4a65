// SPDX-License-Identifier: Apache-2.0

package procfs

import "errors"

// Kind is what a process is to disk images.
type Kind int

// The kinds of process. Outsider is the zero value: nobody is trusted by omission.
const (
	Outsider Kind = iota
	// VMM plausibly runs a virtual machine, or serves disks as one does. That is evidence that the images which it has
	// open are in use; it is no privilege.
	VMM
	Manager
	Trusted
)

// Process is a process at one moment of its life.
type Process struct {
	PID   int // thread group id
	Start uint64
	UID   uint32
	Comm  string
	Exe   string
	Kind  Kind
	// Listed: its executable is, by its inode, one that the lists name. A VMM may be none of these.
	Listed bool
	// Aligned: its executable is, by its inode, one that Classifier.Aligned names.
	Aligned bool
}

// ErrGone means that there is no such process, or none any more.
var ErrGone = errors.New("procfs: no such process")

// SPDX-License-Identifier: Apache-2.0

// Package guard decides whether an operation on a disk image may go ahead.
//
// It knows who uses which image (the union of several sources of evidence, each one a file or package of its own), who
// asks (a VMM, a manager such as libvirtd, or an outsider), and what the contract says of the two. It opens nothing up
// by itself: the file system layer (imgward/fs) and the copy tool (imgward/copy) ask it before they act.
//
// Identity is always the inode of the backing file system, never a path: hard links, symbolic links, bind mounts and
// renames change nothing.
package guard

import (
	"context"
	"os"
	"syscall"
	"time"

	"imgward/guard/role"
)

// ID identifies an image by its inode on the backing file system. Dev is encoded as stat(2) does (unix.Mkdev). A block
// device is the same under all its nodes, so it has Dev BlockDevice and its device number as Ino; StatID makes both.
type ID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// Op is what a caller wants to do to an image. The names are the ones that `imgward check` and the event stream use.
type Op string

// The operations that the contract tells apart. Everything else (reading, stat, chown, chmod, xattrs, locks) is free
// and never reaches the guard.
const (
	// OpOpenWrite opens for writing, without O_TRUNC.
	OpOpenWrite Op = "write"
	// OpWrite is one WRITE request through a checked handle, judged by the process that writes, not by the opener.
	OpWrite Op = "write-data"
	// OpTruncate is every way to lose contents at one stroke: O_TRUNC, ftruncate, and by default all of fallocate.
	OpTruncate Op = "truncate"
	// OpFallocate is fallocate in any mode: punch, zero, collapse, insert, extend.
	OpFallocate Op = "fallocate"
	// OpCopyInto is copy_file_range with the image as its destination.
	OpCopyInto Op = "copy-into"
	// OpUnlink removes a name of the image.
	OpUnlink Op = "unlink"
	// OpRename takes a name of the image away (the source of rename; either side of RENAME_EXCHANGE).
	OpRename Op = "rename"
	// OpReplace puts another file in the place of one of its names (the destination of rename).
	OpReplace Op = "replace"
	// OpRenameDir renames or exchanges a directory above the image.
	OpRenameDir Op = "rename-dir"
	// OpSetFlags sets inode flags (chattr +i, +a): an immutable image stops its VM as surely as a truncated one.
	OpSetFlags Op = "set-flags"
)

// Ops lists the operations.
func Ops() []Op {
	return []Op{OpTruncate, OpOpenWrite, OpUnlink, OpRename, OpSetFlags, OpWrite, OpFallocate, OpCopyInto, OpReplace, OpRenameDir}
}

// Role is what an image is to the domain that uses it.
type Role = role.Role

// The roles.
const (
	RoleDisk       = role.Disk
	RoleCDROM      = role.CDROM
	RoleFloppy     = role.Floppy
	RoleBacking    = role.Backing
	RoleDataFile   = role.DataFile
	RoleMirror     = role.Mirror
	RoleScratch    = role.Scratch
	RoleNVRAM      = role.NVRAM
	RoleLoader     = role.Loader
	RoleKernel     = role.Kernel
	RoleInitrd     = role.Initrd
	RoleDTB        = role.DTB
	RoleMemory     = role.Memory
	RoleFS         = role.FS
	RoleSavedState = role.SavedState
	RoleSnapshot   = role.Snapshot
	RoleMount      = role.Mount
	RoleSwap       = role.Swap
	RoleMember     = role.Member
	RoleUnknown    = role.Unknown
)

// Evidence names the source that says an image is in use.
type Evidence string

// The sources of evidence, in the order of DESIGN.
const (
	EvidenceLibvirt Evidence = "libvirt" // a status file below /run/libvirt
	EvidenceView    Evidence = "view"    // a VMM has it open through the view
	EvidenceProcess Evidence = "process" // a VMM has the backing inode open directly (/proc/PID/fd)
	EvidenceLock    Evidence = "lock"    // QEMU's image locks are held on the backing inode
	EvidenceChain   Evidence = "chain"   // the header of an image in use names it
	EvidenceLayer   Evidence = "layer"   // a device over it is mounted, swap, or part of another
	EvidencePolicy  Evidence = "policy"  // the policy protects it always, or while it is defined
	EvidenceSaved   Evidence = "saved"   // a saved domain needs it, or a snapshot
)

// Use is one reason why an image is in use.
type Use struct {
	Domain string `json:"domain"`
	UUID   string `json:"uuid,omitempty"`
	PID    int    `json:"pid,omitempty"` // of the VMM; 0 where the evidence does not say
	// Program is what that process executes, the name alone. It is looked up for people, where no domain is known.
	Program  string   `json:"program,omitempty"`
	Target   string   `json:"target,omitempty"`
	Role     Role     `json:"role"`
	Writable bool     `json:"writable"`
	Evidence Evidence `json:"evidence"`
	Path     string   `json:"path,omitempty"` // as the evidence names it
	// Pending is set while Path does not answer: the image is what it led to last.
	Pending bool `json:"pending,omitempty"`
	// State is the file that keeps a saved domain's state, or names a snapshot's memory.
	State string `json:"state,omitempty"`
	// Problem is why Path, a status file or a directory of them, cannot be read: what the domain uses is not known.
	Problem string `json:"problem,omitempty"`
	// Layer is the file or block device that is used, where that is not the image itself but shares bytes with it.
	Layer string `json:"layer,omitempty"`

	shareable bool   // the domain shares the disk with others
	emulator  string // of a domain whose file gives no pid
	doubt     doubt  // what could not be found out: that counts against destroyers, and not against VMMs
}

// doubt is why a use is no more than possible.
type doubt int

const (
	certain    doubt = iota
	notRead          // libvirt's files did not answer in time
	unreadable       // one of them cannot be read: see Problem
	stuck            // a process cannot be looked at, for it is about to execute a program
)

// Class says how far a caller is trusted with an image in use.
type Class string

// The classes of the contract. Whether a caller holds the very image, Check works out. ClassVMM takes no proof, and gives
// no right.
const (
	ClassVMM      Class = "vmm"
	ClassManager  Class = "manager"
	ClassTrusted  Class = "trusted" // by the policy: it may do anything, a backup agent for example
	ClassOutsider Class = "outsider"
)

// Process is one process, told apart from a later one with the same pid by its start time.
type Process struct {
	PID   int    // thread group id, in the daemon's pid namespace; 0: not visible there
	Start uint64 // field 22 of /proc/PID/stat, in clock ticks since boot
	UID   uint32
	Comm  string
	Exe   string // what /proc/PID/exe points to, as the kernel prints it
	Class Class
	// Listed: its executable is, by its inode, one that the policy names.
	Listed bool
	// TTY is the device number of its terminal, for a process that may have ended meanwhile; 0: ask /proc.
	TTY uint64
	// Aligned: the policy says that it reads and writes with O_DIRECT in whole blocks to the end.
	Aligned bool
}

// Opener is a process that has an image open through the view. Its Comm, Exe and Class are those of the moment of
// opening, or empty where they are not remembered: Check looks at the process again. The view's own daemon is no opener.
type Opener struct {
	Process
	Write   bool // opened for writing
	Checked bool // opened with Verdict.CheckWrites: each of its writes is judged
	InUse   bool // Checked, and the image was in use when it was opened (Verdict.Uses)
	Locked  bool // a lock was taken through it, some time
	Stream  bool // opened for writing alone, or for appending: a log, and no disk
	Since   time.Time
	// Locks looks at the locks. It is nil where none was taken, and called only while Check runs.
	Locks func() Locks
}

// Request is one question to the guard.
type Request struct {
	Op    Op
	Image ID
	// TID is the thread that asks, as a FUSE request carries it; 0 means a caller that is not visible here: an
	// outsider.
	TID int
	UID uint32
	// Path is the name that the caller used, relative to the view, for messages and policy globs. It may be empty
	// where the caller used a descriptor. It is called only when the answer needs it: at most once by Check, where the
	// policy has rules by path, and once by Refused.
	Path func() string
	// Exists says whether the directory that holds Path has an entry of this name. The next free name in a refusal
	// comes from it; nil leaves that out. Like Path it is called only for a refusal that is explained.
	Exists func(name string) bool
	// Openers are the processes that have the image open through the view, the caller's own handles included.
	Openers []Opener
	// Touches: an open for writing alone and without waiting (O_WRONLY|O_NONBLOCK), as touch(1) makes it to set times.
	Touches bool
	// Open opens the image's inode read-only (O_NONBLOCK, O_CLOEXEC) beside the view, for looking at locks and
	// headers, as a bare descriptor that the caller of Open closes. It may be nil: then locks are not asked.
	Open func() (int, error)
	// NameOf follows a host path, and returns the name below the view by which it leads to the image, in the form of
	// Path; empty where it does not lead there, or does not answer. It may be nil.
	NameOf func(path string) string
	// Shown is the identity under which stat(2) shows the image to the view's users; zero where there is no view.
	Shown ID
	// Quick has Who look no further than for the cheapest evidence, and at no other layer.
	Quick bool
}

// Verdict is the guard's answer. The zero value is a refusal without a reason; use Allowed.
type Verdict struct {
	Allowed bool
	// Errno goes back to the caller when not Allowed: EBUSY, unless the policy says otherwise.
	Errno syscall.Errno
	// Reason is a short clause, "it is vdb of running domain rhevm (pid 1234)". Where something in use is allowed, it is
	// what stood against it, or what in the policy speaks for it.
	Reason string
	// Caller is who asked, as far as it could be found out.
	Caller Process
	// Uses are the reasons behind a refusal, best evidence first; also filled for an allowed operation on an image
	// in use, for the audit.
	Uses []Use
	// Writers are the outsiders whose open write handles keep a VMM out (OpOpenWrite by a VMM).
	Writers []Opener
	// MayPass is set when all that stands against the operation are handles open through the view: their release may
	// already be on its way (it reaches a FUSE server after close(2) has returned), so the caller may wait for a
	// moment, 2 s at most, and ask again.
	MayPass bool
	// Message is what the operator has to say to it (policy: message).
	Message string
	// CheckWrites is set on an allowed open (OpOpenWrite, OpTruncate) whose writes must be judged one by one: a
	// manager's handle on an image in use, one that an exception allows, any outsider's where the policy revokes handles. The file system must send
	// that handle's writes through itself and ask OpWrite for each.
	CheckWrites bool
	// Exception is the ID of the exception (`imgward allow`) that alone lets the operation through; 0: none does.
	Exception uint64
	// Spend, if it is set, must be called right before a deed that an exception lets through: it logs the exception's use,
	// and makes one for a single command this command's. False means that it was used up or has expired since, and the
	// operation is refused after all.
	Spend func() bool
	// Audit is set where the policy only watches (mode = "audit"): Allowed is true, and the rest says what would have
	// been refused. The caller reports it through Refused as well.
	Audit bool
}

// Host gives the guard its way to files that evidence names by path, without ever entering a view of the guard's own
// daemon (which would deadlock). Paths are absolute host paths, as libvirt writes them.
type Host interface {
	// Lookup follows path, symbolic links included, to an inode. It opens nothing but O_PATH descriptors. The error
	// is an fs.PathError; ENOENT means that the file is not there now.
	Lookup(path string) (ID, error)
	// Open opens the file read-only (O_NONBLOCK, O_CLOEXEC). Only regular files and block devices are opened;
	// anything else is EINVAL.
	Open(path string) (*os.File, error)
	// OpenDir opens a directory, as a bare descriptor that can be listed (O_DIRECTORY, O_CLOEXEC).
	OpenDir(path string) (int, error)
}

// Checker is the guard as the file system and the copy engine see it.
type Checker interface {
	// Check judges one request by fresh evidence. It has no side effect: it may be asked again, and `imgward check`
	// asks it too. It never returns an error: what cannot be found out counts against destroyers and for VMMs.
	Check(ctx context.Context, r *Request) Verdict
	// Refused reports a refusal that was really given to a caller: it explains it on the caller's terminal, logs it,
	// counts it and publishes it. It does not block on any of these, and uses r only until it returns.
	Refused(r *Request, v *Verdict)
	// Classify resolves a thread id to its process. It is cheap for a process seen a moment ago.
	Classify(tid int, uid uint32) Process
	// TakesLocks notes that a process has taken a lock on an image.
	TakesLocks(pid int, uid uint32)
	// Who says who uses an image, by fact: whatever the policy makes of it, and whoever asks; the image itself, or a layer
	// below or above it (a loop device over it, the disk of a partition). Of the request it takes Image, Open, Openers, Shown
	// and Quick.
	Who(ctx context.Context, r *Request) []Use
	// InUse lists the images in use by evidence other than the view's own handles, with the paths that evidence
	// gives, fresh as for Check. The zero ID stands for every image: it is there while a domain's status file cannot be
	// read and nothing is known of it from before.
	InUse(ctx context.Context) map[ID][]Use
	// Ruled says which files the policy protects whether anybody uses them or not, by path relative to the view and
	// inode; nil where no rule does. The answers are those of the moment of the call.
	Ruled(ctx context.Context) func(path string, id ID) bool
}

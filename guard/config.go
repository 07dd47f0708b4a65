// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"log/slog"

	"imgward/guard/libvirt"
	"imgward/guard/policy"
)

// Config is what a Guard is made of. The zero value guards by the default policy with the host's own files.
type Config struct {
	Policy *policy.Policy // nil: policy.Default
	Host   Host           // nil: HostDirect
	Log    *slog.Logger
	// ViewRoot is the host path of the view's mountpoint, for messages only. Empty where there is no view.
	ViewRoot string
	// StatusDirs are libvirt's directories of status files; nil: DefaultStatusDirs.
	StatusDirs []libvirt.Dir
	// DefinitionDirs hold the definitions of persistent domains; nil: DefaultDefinitionDirs. They are read only where the
	// policy protects what is defined.
	DefinitionDirs []libvirt.Dir
	// SaveDirs are where libvirt keeps the managed states of saved domains; nil: DefaultSaveDirs.
	SaveDirs []libvirt.Dir
	// SnapshotDir has a directory for each domain with snapshots; empty: DefaultSnapshotDir.
	SnapshotDir string
	// PoolDirs hold libvirt's definitions of storage pools; nil: DefaultPoolDirs.
	PoolDirs []string
	// Exceptions are those that hold already: what SaveExceptions was given last by a predecessor.
	Exceptions []Exception
	// SaveExceptions is told all exceptions whenever they change. It is called by one goroutine at a time.
	SaveExceptions func([]Exception) error
	// History is what a predecessor gave SaveEvent, oldest first.
	History []Event
	// FirstID is the ID of the first event where there is no History; 0: 1. IDs of several views do not meet if these are
	// chosen at random.
	FirstID uint64
	// SaveEvent is told each event; nil: nobody is. It is called by one goroutine at a time.
	SaveEvent func(*Event)
	// Changed is told that libvirt's directories, the exceptions or the policy may have changed; nil: nobody is. It must not
	// block, nor ask the Guard.
	Changed func()
	// ProcRoot is where proc is mounted; empty: /proc.
	ProcRoot string
	// Brief is for a command that asks a few questions and ends: nothing is read before a question needs it, and
	// nothing is watched (the kernel makes the end of an inotify wait for a grace period: 10 to 20 ms, Linux 6.18).
	Brief bool
	// HostRoot, before an absolute path, leads to the host's file of that name. Empty, unless this process is in a mount
	// namespace of its own, where executables of the policy may be hidden.
	HostRoot string
	remote   func(fd int) bool // says whether other hosts may have a file open; nil: isRemote
	// Audit is the kernel's audit log; nil: there is none.
	Audit AuditLog
}

// DefaultStatusDirs are where libvirt's drivers keep status files on Linux: the system daemons below /run/libvirt, the
// session daemons of each user in the user's runtime directory.
func DefaultStatusDirs() []libvirt.Dir {
	return []libvirt.Dir{
		{Path: "/run/libvirt/qemu", Driver: "qemu"},
		{Path: "/run/libvirt/libxl", Driver: "libxl"},
		{Path: "/run/libvirt/lxc", Driver: "lxc"},
		{Path: "/run/libvirt/ch", Driver: "ch"},
		{Path: "/run/user/*/libvirt/qemu/run", Driver: "qemu", Session: true},
	}
}

// DefaultDefinitionDirs are where libvirt's system daemons keep the definitions of persistent domains.
func DefaultDefinitionDirs() []libvirt.Dir {
	var dirs []libvirt.Dir
	for _, driver := range []string{"qemu", "libxl", "lxc", "ch"} {
		dirs = append(dirs, libvirt.Dir{Path: "/etc/libvirt/" + driver, Driver: driver})
	}
	return dirs
}

// DefaultSaveDirs is where libvirt's system daemons for QEMU keep managed states. Other drivers' have another form.
func DefaultSaveDirs() []libvirt.Dir {
	return []libvirt.Dir{{Path: "/var/lib/libvirt/qemu/save", Driver: "qemu"}}
}

// DefaultSnapshotDir is where they keep the metadata of snapshots.
const DefaultSnapshotDir = "/var/lib/libvirt/qemu/snapshot"

// DefaultPoolDirs are where libvirt keeps its storage pools: the state of active ones, then the definitions.
func DefaultPoolDirs() []string {
	return []string{"/run/libvirt/storage", "/etc/libvirt/storage"}
}

// withDefaults fills in what is not set.
func (c Config) withDefaults() Config {
	if c.Policy == nil {
		c.Policy = policy.Default()
	}
	if c.Host == nil {
		c.Host = HostDirect{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.StatusDirs == nil {
		c.StatusDirs = DefaultStatusDirs()
	}
	if c.DefinitionDirs == nil {
		c.DefinitionDirs = DefaultDefinitionDirs()
	}
	if c.remote == nil {
		c.remote = isRemote
	}
	if c.SaveDirs == nil {
		c.SaveDirs = DefaultSaveDirs()
	}
	if c.SnapshotDir == "" {
		c.SnapshotDir = DefaultSnapshotDir
	}
	if c.PoolDirs == nil {
		c.PoolDirs = DefaultPoolDirs()
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.ProcRoot == "" {
		c.ProcRoot = "/proc"
	}
	return c
}

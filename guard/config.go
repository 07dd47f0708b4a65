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
	// PoolDirs hold libvirt's definitions of storage pools; nil: DefaultPoolDirs.
	PoolDirs []string
	// Exceptions are those that hold already: what SaveExceptions was given last by a predecessor.
	Exceptions []Exception
	// SaveExceptions is told all exceptions whenever they change. It is called by one goroutine at a time.
	SaveExceptions func([]Exception) error
	// History is what a predecessor gave SaveEvent, oldest first.
	History []Event
	// SaveEvent is told each event; nil: nobody is. It is called by one goroutine at a time.
	SaveEvent func(*Event)
	// ProcRoot is where proc is mounted; empty: /proc.
	ProcRoot string
	// Brief is for a command that asks a few questions and ends: it does without inotify, whose end the kernel makes wait
	// for a grace period (10 to 20 ms, Linux 6.18). All files are still looked at now and then.
	Brief bool
	// HostRoot, before an absolute path, leads to the host's file of that name. Empty, unless this process is in a mount
	// namespace of its own, where executables of the policy may be hidden.
	HostRoot string
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
	if c.PoolDirs == nil {
		c.PoolDirs = DefaultPoolDirs()
	}
	if c.ProcRoot == "" {
		c.ProcRoot = "/proc"
	}
	return c
}

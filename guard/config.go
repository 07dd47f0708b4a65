package guard

import (
	"log/slog"

	"imgward/guard/libvirt"
)

// Config is what a Guard is made of. The zero value guards by the default policy with the host's own files.
type Config struct {
	Policy *Policy // nil: DefaultPolicy
	Host   Host    // nil: HostDirect
	Log    *slog.Logger
	// ViewRoot is the host path of the view's mountpoint, for messages only. Empty where there is no view.
	ViewRoot string
	// StatusDirs are libvirt's directories of status files; nil: DefaultStatusDirs.
	StatusDirs []libvirt.Dir
	// PoolDirs hold libvirt's definitions of storage pools; nil: DefaultPoolDirs.
	PoolDirs []string
	// ProcRoot is where proc is mounted; empty: /proc.
	ProcRoot string
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

// DefaultPoolDirs are where libvirt keeps its storage pools: the state of active ones, then the definitions.
func DefaultPoolDirs() []string {
	return []string{"/run/libvirt/storage", "/etc/libvirt/storage"}
}

// withDefaults fills in what is not set.
func (c Config) withDefaults() Config {
	if c.Policy == nil {
		c.Policy = DefaultPolicy()
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
	if c.PoolDirs == nil {
		c.PoolDirs = DefaultPoolDirs()
	}
	if c.ProcRoot == "" {
		c.ProcRoot = "/proc"
	}
	return c
}

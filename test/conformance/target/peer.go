// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Peer is one file system that can show a directory at a mount point, from a foreground process.
type Peer struct {
	Name string
	// Command gives the program and its arguments. tools is the directory with what Build made.
	Command func(tools, backing, mountpoint string) []string
	// Omits says which of "direct", "sync" and "fresh" (to see soon what others change below it) it leaves undone, and
	// how that is known. Its speed at these is no measure for one that does them.
	Omits map[string]string
	// Passthrough: it has the kernel pass reads and writes through.
	Passthrough bool
	// build makes the program below tools; nil for one that is installed.
	build func(ctx context.Context, tools string) error
}

// View is imgward as it is meant to run.
var View = Peer{
	Name:        "view",
	Passthrough: true,
	Command: func(tools, backing, mountpoint string) []string {
		return []string{imgward(tools), "mount", "-f", "--backing", backing, mountpoint}
	},
	build: buildImgward,
}

// ViewNoPassthrough is imgward with every byte going through the daemon, as on kernels before 6.9.
var ViewNoPassthrough = Peer{
	Name: "view-nopassthrough",
	Command: func(tools, backing, mountpoint string) []string {
		return []string{imgward(tools), "mount", "-f", "-o", "nopassthrough", "--backing", backing, mountpoint}
	},
	build: buildImgward,
}

// Bindfs is bindfs(1), in Debian.
var Bindfs = Peer{
	Name: "bindfs",
	Command: func(_, backing, mountpoint string) []string {
		return []string{"bindfs", "-f", backing, mountpoint}
	},
	Omits: map[string]string{"direct": "it opens without O_DIRECT (1.14.7: /proc/PID/fdinfo shows flags 0100002)"},
}

// Mergerfs is mergerfs(1), in Debian, over a single branch.
var Mergerfs = Peer{
	Name: "mergerfs",
	Command: func(_, backing, mountpoint string) []string {
		return []string{"mergerfs", "-f", "-o", "allow_other,use_ino,cache.files=off,dropcacheonclose=false", backing, mountpoint}
	},
}

// Loopback is go-fuse's example, which asks for kernel passthrough by itself.
var Loopback = Peer{
	Name:        "go-fuse-loopback",
	Passthrough: true,
	Command: func(tools, backing, mountpoint string) []string {
		return []string{filepath.Join(tools, "loopback"), "-q", "-allow-other", mountpoint, backing}
	},
	build: func(ctx context.Context, tools string) error {
		return goBuild(ctx, filepath.Join(tools, "loopback"), "github.com/hanwen/go-fuse/v2/example/loopback")
	},
}

// Libfuse is the path-based example of libfuse 3.
var Libfuse = Peer{
	Name: "passthrough",
	Command: func(tools, backing, mountpoint string) []string {
		return []string{
			filepath.Join(tools, "passthrough"), "-f", "-o",
			"allow_other,default_permissions,modules=subdir,subdir=" + backing, mountpoint,
		}
	},
	Omits: map[string]string{"sync": "its fsync is a stub that returns 0 (3.14.0: passthrough.c, xmp_fsync)"},
	build: func(ctx context.Context, tools string) error { return buildExample(ctx, tools, "passthrough") },
}

// LibfuseLL is the low-level example of libfuse 3.
var LibfuseLL = Peer{
	Name: "passthrough_ll",
	Command: func(tools, backing, mountpoint string) []string {
		return []string{
			filepath.Join(tools, "passthrough_ll"), "-f", "-o",
			"allow_other,default_permissions,xattr,source=" + backing, mountpoint,
		}
	},
	build: func(ctx context.Context, tools string) error { return buildExample(ctx, tools, "passthrough_ll") },
}

// LibfuseHP is libfuse's fastest example, in C++. Debian 12's (3.14.0) knows no passthrough by the kernel.
var LibfuseHP = Peer{
	Name: "passthrough_hp",
	Command: func(tools, backing, mountpoint string) []string {
		return []string{filepath.Join(tools, "passthrough_hp"), "--foreground", backing, mountpoint}
	},
	Omits: map[string]string{"fresh": "the kernel keeps names and attributes for a day (3.14.0: passthrough_hp.cc, fs.timeout)"},
	build: func(ctx context.Context, tools string) error { return buildExample(ctx, tools, "passthrough_hp") },
}

// Peers are all of them, imgward's two modes first.
func Peers() []Peer {
	return []Peer{View, ViewNoPassthrough, Bindfs, Mergerfs, Loopback, Libfuse, LibfuseLL, LibfuseHP}
}

// PeerNamed finds a peer by its name.
func PeerNamed(name string) (Peer, error) {
	for _, p := range Peers() {
		if p.Name == name {
			return p, nil
		}
	}
	return Peer{}, fmt.Errorf("no peer is called %q", name)
}

// Build makes the peer's program ready below tools, or says why it cannot be had here.
func (p Peer) Build(ctx context.Context, tools string) error {
	if p.build != nil {
		return wrap(p.build(ctx, tools), p.Name)
	}
	_, err := exec.LookPath(p.Command(tools, "", "")[0])
	return wrap(err, p.Name)
}

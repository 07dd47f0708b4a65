// SPDX-License-Identifier: Apache-2.0

// Package lsm is the second layer in the kernel: BPF LSM programs that refuse to destroy an image in use, whatever way
// leads to it. It needs no mount and costs reads and writes nothing.
//
// Programs and maps are pinned in bpffs, so they go on refusing when no process of imgward's is alive. The kernel counts
// by itself what VMMs have open for writing (bpf/evidence.h); all else is declared: who runs a domain, which images are a
// domain's, which executables are VMMs and managers. What is declared for a process holds until that process ends.
//
// Identity is the inode, by a descriptor or as the kernel numbers it (stat(2) tells other numbers on overlayfs and btrfs),
// and for block devices the device number.
package lsm

import (
	"errors"
	"log/slog"
	"os"
	"sync"

	"github.com/cilium/ebpf"

	"imgward/guard"
)

// DefaultDir is where the layer is pinned.
const DefaultDir = "/sys/fs/bpf/imgward"

// Layer is the loaded layer. Its methods may be called by several goroutines.
type Layer struct {
	dir string // where this version is pinned
	log *slog.Logger
	*tables
	counting *ebpf.Program // the iterator of bpf/guard.bpf.c

	mu       sync.Mutex // of all below
	settings settings
	images   map[guard.ID]*declaration
	byNumber map[uint32]guard.ID
	last     uint32 // number that was given to an image
}

// declaration is what has been declared of an image.
type declaration struct {
	value image
	file  *os.File // Image.File; nil for a block device
}

// tables are the maps of bpf/guard.bpf.c that are read or written here.
type tables struct {
	Declared  *ebpf.Map `ebpf:"declared"`
	Devices   *ebpf.Map `ebpf:"devices"`
	Nodes     *ebpf.Map `ebpf:"nodes"`
	Programs  *ebpf.Map `ebpf:"programs"`
	Processes *ebpf.Map `ebpf:"processes"`
	Views     *ebpf.Map `ebpf:"views"`
	Mounts    *ebpf.Map `ebpf:"mounts"`
	Answers   *ebpf.Map `ebpf:"answers"`
	Events    *ebpf.Map `ebpf:"events"`
	Asker     *ebpf.Map `ebpf:".data.asker"`
	Settings  *ebpf.Map `ebpf:".data.settings"`
	Counters  *ebpf.Map `ebpf:".bss"`
}

// all lists the maps by the names under which they are pinned, which may have no dots.
func (m *tables) all() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		"declared": &m.Declared, "devices": &m.Devices, "nodes": &m.Nodes, "programs": &m.Programs, "processes": &m.Processes, "views": &m.Views,
		"mounts": &m.Mounts, "answers": &m.Answers, "events": &m.Events, "asker": &m.Asker, "settings": &m.Settings,
		"counters": &m.Counters,
	}
}

// Close lets go of the layer, which stays in force.
func (l *Layer) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := []error{l.counting.Close()}
	for _, m := range l.tables.all() {
		errs = append(errs, (*m).Close())
	}
	return errors.Join(errs...)
}

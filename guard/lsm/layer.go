// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/calls"
	"imgward/guard/layers"
	"imgward/guard/policy"
	"imgward/guard/second"
)

// Name is the layer's.
const Name = "lsm"

// View is a view that is mounted on this host: images are declared by what is below it, and its mount is kept.
type View struct {
	Mountpoint string
	// Tree is a path that leads to the root of its backing tree: /proc/PID/fd/N of its worker.
	Tree string
}

// Maker makes it. views lists the views of the moment; it must not wait for one.
func Maker(views func() []View) second.Maker {
	return second.Maker{
		Name:  Name,
		Make:  func(c *second.Config) (second.Layer, error) { return start(c, views) },
		Loads: func() bool { return Supported() == nil },
	}
}

// layer is a Layer that is told what is in use by a second.Driver.
type layer struct {
	*Layer
	config *second.Config
	views  func() []View
	stack  layers.Stack
	stop   chan struct{}
	ended  chan error // of Follow

	mu       sync.Mutex
	declared *second.Declaration
	holds    []second.Hold
	known    map[guard.ID]guard.ID    // as it was declared → as the guard names it
	also     map[guard.ID][]guard.Use // of what is declared beside declared.Uses: by the policy, directories
	strict   bool
	mounted  map[uint64]string // mountpoints of views, by device number

	// Of Declare alone:
	policy   *policy.Policy // by which processes were looked at
	looked   time.Time      // at programs
	programs map[string]programFile
	slow     calls.Keyed
	files    map[guard.ID]*file
	ruled    ruled
}

func start(c *second.Config, views func() []View) (second.Layer, error) {
	loaded, err := Load(DefaultDir, c.Log)
	if err != nil {
		return nil, err
	}
	l := &layer{
		Layer: loaded, config: c, views: views, stop: make(chan struct{}), ended: make(chan error, 1),
		mounted: map[uint64]string{}, declared: &second.Declaration{}, ruled: ruled{soon: c.Soon},
	}
	go func() { l.ended <- l.Follow(l.stop, l) }()
	return l, nil
}

// Name implements second.Layer.
func (l *layer) Name() string { return Name }

// Declare implements second.Layer.
func (l *layer) Declare(ctx context.Context, d *second.Declaration) error {
	p := l.config.Guard.Policy()
	var errs []error
	fresh := l.policy != p
	if fresh {
		strict := p.Second == policy.SecondStrict
		errs = append(errs, l.SetPolicy(deny(p, &p.Default), p.Default.Mode == policy.Audit), l.Strict(strict))
		l.mu.Lock()
		l.strict = strict
		l.mu.Unlock()
	}
	if fresh || time.Since(l.looked) > lookEvery {
		errs = append(errs, l.lookAtPrograms(p))
	}
	if fresh {
		errs = append(errs, l.lookAtProcesses())
	}
	views := l.followViews()
	named := l.holders(d)
	if fresh || named {
		errs = append(errs, l.CountOpen())
	}
	images, old := l.images(ctx, d, views)
	errs = append(errs, l.Layer.Declare(images))
	for _, f := range old {
		f.Close()
	}
	if fresh {
		errs = append(errs, l.RemoveOthers())
	}
	err := errors.Join(errs...)
	if err == nil {
		l.policy = p
	}
	return err
}

// holders names the running domains' processes, and says whether one is new.
func (l *layer) holders(d *second.Declaration) (fresh bool) {
	for _, uses := range d.Uses {
		for _, u := range uses {
			if u.PID <= 0 {
				continue
			}
			class := Holder
			if u.Evidence == guard.EvidenceLibvirt || u.Evidence == guard.EvidenceProcess {
				class |= VMM
			}
			var p process
			if err := l.Processes.Lookup(uint32(u.PID), &p); err == nil && p.Class&class == class {
				continue
			}
			if err := l.Process(u.PID, class); err != nil {
				l.log.Warn("a virtual machine's process is not known to the kernel", "pid", u.PID, "error", err)
			}
			fresh = true
		}
	}
	return fresh
}

// deny is what a rule of the policy has refused. A policy that does not want the layer has it refuse nothing, also of what the
// kernel counts.
func deny(p *policy.Policy, r *policy.Rule) policy.Ops {
	if r.Protect == policy.Never || !second.Wanted(p, Name) {
		return 0
	}
	return r.Deny
}

// lookEvery is how soon a program is known that a package has put in the place of another.
const lookEvery = 2 * time.Second

// lookAtPrograms tells the kernel which programs make a VMM or manager.
func (l *layer) lookAtPrograms(p *policy.Policy) error {
	l.looked = time.Now()
	var errs []error
	seen := map[string]programFile{}
	for class, globs := range map[Class][]string{
		VMM: p.Processes.VMMs, Manager: p.Processes.Managers, Trusted: append(slices.Clone(p.Processes.Trusted), "/proc/self/exe"),
		Storage: storageManagers(),
	} {
		for _, g := range globs {
			paths, _ := filepath.Glob(g)
			for _, path := range paths {
				var st unix.Stat_t
				if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
					continue
				}
				seen[path] = programFile{guard.StatID(&st), st.Ctim, class}
				if l.programs[path] != seen[path] {
					errs = append(errs, l.Program(path, class))
				}
			}
		}
	}
	l.programs = seen
	return errors.Join(errs...)
}

// programFile is what the kernel was told of a path.
type programFile struct {
	id      guard.ID
	changed unix.Timespec
	class   Class
}

// lookAtProcesses tells the kernel which of the processes that there are already is a VMM or manager.
func (l *layer) lookAtProcesses() error {
	var errs []error
	pids, err := filepath.Glob("/proc/[0-9]*")
	errs = append(errs, err)
	for _, dir := range pids {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid); err != nil {
			continue
		}
		var class Class
		switch l.config.Guard.Classify(pid, 0).Class {
		case guard.ClassVMM:
			class = VMM
		case guard.ClassManager:
			class = Manager
		case guard.ClassTrusted:
			class = Trusted
		}
		if pid == os.Getpid() || l.isOurs(pid) {
			class |= Trusted
		}
		if class != 0 {
			errs = append(errs, l.Process(pid, class))
		}
	}
	return errors.Join(errs...)
}

// isOurs says whether a process executes this very program: a view's worker, or its keeper.
func (l *layer) isOurs(pid int) bool {
	var its, own unix.Stat_t
	return unix.Stat(fmt.Sprintf("/proc/%d/exe", pid), &its) == nil && unix.Stat("/proc/self/exe", &own) == nil &&
		its.Dev == own.Dev && its.Ino == own.Ino
}

// storageManagers write to the devices below those that are in use, which is their work: LVM's metadata, a boot loader, a
// partition table, the superblock of a mounted file system. Some open a disk for writing to ask it something.
func storageManagers() []string {
	var globs []string
	for _, dir := range []string{"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"} {
		for _, name := range []string{
			"lvm", "dmeventd", "dmsetup", "multipathd", "multipath", "mdadm", "cryptsetup", "veritysetup", "integritysetup", "vdo",
			"bcache*", "iscsid", "drbdmeta", "drbdsetup", "udisksd", "smartctl", "smartd",
			"grub-bios-setup", "grub-install", "grub2-bios-setup", "grub2-install", "extlinux", "zipl",
			"sfdisk", "fdisk", "cfdisk", "gdisk", "sgdisk", "parted", "partprobe", "partx", "systemd-repart",
			"tune2fs", "e2label", "resize2fs", "xfs_growfs", "btrfs", "btrfstune",
		} {
			globs = append(globs, dir+name)
		}
	}
	return globs
}

// followViews keeps the mounts of the views that there are now, and no others: the kernel gives their numbers to other mounts.
func (l *layer) followViews() []View {
	views := l.views()
	mounted, err := l.KeepViews()
	if err != nil {
		l.log.Warn("not all mounts of views are kept", "error", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mounted = mounted
	return views
}

// Status implements second.Layer.
func (l *layer) Status() second.Status {
	s := second.Status{Layer: Name, Active: true}
	select {
	case err := <-l.ended:
		l.ended <- err
		s.Reason = fmt.Sprint("it refuses, but explains nothing: ", err)
	default:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Holds, s.Strict = l.holds, l.strict
	return s
}

// Close implements second.Layer: what is pinned stays in force.
func (l *layer) Close() error {
	close(l.stop)
	for _, f := range l.files {
		f.Close()
	}
	return l.Layer.Close()
}

// Remove implements second.Layer.
func (l *layer) Remove() error { return errors.Join(l.Close(), Remove(DefaultDir)) }

// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/calls"
	"imgward/guard/layers"
	"imgward/guard/policy"
	"imgward/guard/second"
)

// images are those that are declared: the files and devices in use, the devices that share bytes with them, those that the policy
// keeps, the directories above, and those for which there is an exception. The files in old are not among them any more.
func (l *layer) images(ctx context.Context, d *second.Declaration, views []View) (images []Image, old []*os.File) {
	g := &gathering{
		policy: l.config.Guard.Policy(), views: views, mounted: l.mounted, slow: &l.slow, byID: map[guard.ID]*Image{}, known: map[guard.ID]guard.ID{},
		also: map[guard.ID][]guard.Use{}, found: map[guard.ID]*file{}, before: l.files, stack: l.stack.Once(), dirs: map[guard.ID]*dir{},
		disks: map[uint64][]layers.Layer{}, under: map[uint64]bool{},
	}
	var holds []second.Hold
	for id, uses := range d.Uses {
		if id == (guard.ID{}) {
			continue // it may be anything: what VMMs have open is counted
		}
		hold := second.Hold{ID: id, Path: uses[0].Path, Uses: uses}
		if err := g.add(id, uses); err != nil {
			hold.Left = err.Error()
		}
		holds = append(holds, hold)
	}
	g.addDirs()
	g.keep(l.config.Guard.Defined(ctx), policy.Defined, func(m *Image) { m.Defined = true })
	g.keep(l.ruled.find(g.policy, views), policy.Always, func(m *Image) { m.Always = true })
	for i := range d.Exceptions {
		g.except(&d.Exceptions[i])
	}
	l.mu.Lock()
	l.declared, l.holds, l.known, l.also = d, holds, g.known, g.also
	l.mu.Unlock()
	l.files = g.found
	for _, m := range g.byID {
		images = append(images, *m)
	}
	for id, f := range g.before {
		if g.found[id] == nil {
			old = append(old, f.File)
		}
	}
	return images, old
}

// gathering is a list of images that grows.
type gathering struct {
	policy *policy.Policy
	views  []View
	// mounted are the views that there are, by device number; those that do not answer are not among views.
	mounted map[uint64]string
	slow    *calls.Keyed // a path may lead to a server that is dead
	stack   layers.Stack
	byID    map[guard.ID]*Image
	known   map[guard.ID]guard.ID    // as it is declared → as the guard names it
	also    map[guard.ID][]guard.Use // of what no evidence names
	dirs    map[guard.ID]*dir
	disks   map[uint64][]layers.Layer // below a file system
	under   map[uint64]bool           // file systems whose disks are being added
	// found are the descriptors of the files, by their guard's name; before, those of the last time.
	found, before map[guard.ID]*file
}

// file is an image or a directory that is open.
type file struct {
	*os.File
	behind string   // the path in the backing tree by which it was found; empty: it is in no view
	parent guard.ID // of an image, the directory that it was found in; zero: not known
}

func (g *gathering) image(id guard.ID, f *os.File, r *policy.Rule) *Image {
	m := g.byID[id]
	if m == nil {
		m = &Image{ID: id, Deny: deny(g.policy, r), Audit: r.Mode == policy.Audit, File: f}
		g.byID[id] = m
	}
	return m
}

// rule is the policy's for an image, by the names below a view that its uses have.
func (g *gathering) rule(uses []guard.Use) *policy.Rule {
	if len(g.policy.Rules) > 0 {
		for _, u := range uses {
			for _, v := range g.views {
				if rest, ok := v.below(u.Path); ok {
					return g.policy.For(rest)
				}
			}
		}
	}
	return &g.policy.Default
}

func (m *Image) use(uses []guard.Use) {
	for _, u := range uses {
		if u.PID > 0 {
			m.Holders = append(m.Holders, u.PID)
		} else {
			m.Used = true
		}
	}
}

// add adds an image in use, the devices that share bytes with it, and notes what lies above it.
func (g *gathering) add(id guard.ID, uses []guard.Use) error {
	if id.Dev == guard.BlockDevice {
		g.device(id, uses, false)
		g.sharing(layers.ID(id), uses)
		return nil
	}
	real, f, err := g.file(id, uses)
	if err != nil {
		return err
	}
	m := g.image(real, f.File, g.rule(uses))
	m.Below = false
	m.use(uses)
	g.sharing(layers.ID(id), uses)
	if m.Deny&policy.Rename != 0 {
		g.noteDir(f, real, m, uses)
	}
	g.disksOf(f, real.Dev, uses)
	return nil
}

// disksOf adds the devices of an image's file system and what is below them: what is written to them past the file system is as good
// as written to the image. Network file systems have none.
func (g *gathering) disksOf(f *file, dev uint64, uses []guard.Use) {
	if g.under[dev] {
		return // a loop device's path may lead elsewhere in this mount namespace, even to itself
	}
	g.under[dev] = true
	defer delete(g.under, dev)
	list, known := g.disks[dev]
	if !known {
		list = g.findDisks(f, dev)
		g.disks[dev] = list
	}
	for _, o := range list {
		g.below(o, uses)
	}
}

func (g *gathering) findDisks(f *file, dev uint64) []layers.Layer {
	if unix.Major(dev) == 0 {
		return g.stack.Btrfs(btrfs(f.File)) // its st_dev is no device's number
	}
	if id := layers.Device(dev); g.stack.Exists(id) {
		return append([]layers.Layer{{ID: id}}, g.stack.Below(id)...)
	}
	return nil
}

// btrfs is the UUID of the btrfs that a file is on; empty: it is on another file system.
func btrfs(f *os.File) string {
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil || st.Type != unix.BTRFS_SUPER_MAGIC {
		return ""
	}
	fd, err := unix.Open(procFD(f), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	const fsInfo = 0x8400941f // BTRFS_IOC_FS_INFO (include/uapi/linux/btrfs.h): the UUID comes after two numbers of 64 bits
	var info [1024]byte
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsInfo, uintptr(unsafe.Pointer(&info[0]))); no != 0 {
		return ""
	}
	id := info[16:32]
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// below adds a layer below an image in use: a device, or the file that a loop device keeps its bytes in.
func (g *gathering) below(o layers.Layer, uses []guard.Use) {
	if o.ID.IsDevice() {
		g.device(guard.ID(o.ID), uses, true)
		return
	}
	id := guard.ID(o.ID)
	real, f, err := g.file(id, []guard.Use{{Path: o.Path}})
	if err != nil {
		return // nothing leads to it any more
	}
	_, known := g.byID[real]
	m := g.image(real, f.File, g.rule([]guard.Use{{Path: o.Path}}))
	m.Below = m.Below || !known
	m.use(uses)
	if g.also[id] == nil {
		g.also[id] = uses
	}
	g.disksOf(f, real.Dev, uses)
}

func (g *gathering) sharing(id layers.ID, uses []guard.Use) {
	for _, o := range g.stack.Above(id) {
		g.device(guard.ID(o.ID), uses, false)
	}
	for _, o := range g.stack.Below(id) {
		g.below(o, uses)
	}
}

// keep adds what the policy has kept, in use or not: the images whose rule says that.
func (g *gathering) keep(images map[guard.ID][]guard.Use, protect policy.Protect, mark func(*Image)) {
	for id, uses := range images {
		if id == (guard.ID{}) {
			continue
		}
		r := g.rule(uses)
		if r.Protect != protect {
			continue
		}
		if id.Dev == guard.BlockDevice {
			mark(g.image(id, nil, r))
			g.also[id] = uses
			continue
		}
		if real, f, err := g.file(id, uses); err == nil {
			mark(g.image(real, f.File, r))
			g.also[id] = uses
		}
	}
}

// file is the file that the guard knows by this ID, and what it is beside any view.
func (g *gathering) file(id guard.ID, uses []guard.Use) (real guard.ID, f *file, err error) {
	f = g.before[id]
	if f == nil {
		f = g.found[id]
	}
	if f == nil {
		if f, err = g.findInTime(id, uses); err != nil {
			return real, nil, err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return real, nil, err
	}
	g.found[id], g.known[guard.StatID(&st)] = f, id
	return guard.StatID(&st), f, nil
}

func (g *gathering) device(id guard.ID, uses []guard.Use, below bool) {
	if id.Dev != guard.BlockDevice {
		return
	}
	_, known := g.byID[id]
	m := g.image(id, nil, g.rule(nil))
	m.Below = below && (m.Below || !known)
	m.use(uses)
	if below && g.also[id] == nil {
		g.also[id] = uses
	}
}

// except adds an exception to its image, also to one that is in use by what the kernel alone has counted.
func (g *gathering) except(e *guard.Exception) {
	for _, m := range g.byID {
		if m.ID == e.Image || g.known[m.ID] == e.Image {
			m.Exception = e
			return
		}
	}
	if e.Image.Dev == guard.BlockDevice {
		g.image(e.Image, nil, g.rule(nil)).Exception = e
		return
	}
	uses := []guard.Use{{Path: e.Path}}
	if real, f, err := g.file(e.Image, uses); err == nil {
		g.image(real, f.File, g.rule(uses)).Exception = e
	}
}

// findInTime is find, unless that takes too long.
func (g *gathering) findInTime(id guard.ID, uses []guard.Use) (*file, error) {
	var found struct {
		f   *file
		err error
	}
	if !g.slow.Do(id.String(), func() { found.f, found.err = g.find(id, uses) }) {
		return nil, fmt.Errorf("%s does not answer", uses[0].Path)
	}
	return found.f, found.err
}

// find opens, with O_PATH, an image that the guard knows by evidence: by the path that this names, or by the descriptor of a
// process that has it open. Of a file of a view it is the one behind it.
func (g *gathering) find(id guard.ID, uses []guard.Use) (*file, error) {
	err := fmt.Errorf("%s cannot be found", uses[0].Path)
	for _, u := range uses {
		if filepath.IsAbs(u.Path) {
			f, openErr := g.open(u.Path, id)
			if openErr == nil {
				return f, nil
			}
			err = openErr
		}
	}
	for _, u := range uses {
		if u.PID <= 0 {
			continue
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", u.PID))
		for _, fd := range fds {
			if f, err := g.open(fd, id); err == nil {
				return f, nil
			}
		}
	}
	return nil, err
}

var errOther = errors.New("another file has its name now")

// open opens what a path leads to if it is that image, or the file behind it.
func (g *gathering) open(path string, id guard.ID) (*file, error) {
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errOther
	}
	shown, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, err
	}
	if behind := g.behind(shown); behind != "" {
		real, err := os.OpenFile(behind, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, err
		}
		var its unix.Stat_t
		if err := unix.Fstat(int(real.Fd()), &its); err == nil && (guard.StatID(&st) == id || guard.StatID(&its) == id) {
			return &file{File: real, behind: behind}, nil
		}
		real.Close()
		return nil, errOther
	}
	if guard.StatID(&st) != id {
		return nil, errOther
	}
	if view := g.mounted[st.Dev]; view != "" {
		return nil, fmt.Errorf("the view %s does not say where %s is", view, path) // it judges what goes through it, and that alone
	}
	f, err = os.OpenFile(path, unix.O_PATH, 0)
	return &file{File: f}, err
}

// behind is the path in the backing tree of a file of a view; empty: it is in none.
func (g *gathering) behind(path string) string {
	for _, v := range g.views {
		if rest, ok := v.below(path); ok {
			return filepath.Join(v.Tree, rest)
		}
	}
	return ""
}

// below is a path relative to the view; false if it is not in there.
func (v View) below(path string) (string, bool) {
	return strings.CutPrefix(path, strings.TrimSuffix(v.Mountpoint, "/")+"/")
}

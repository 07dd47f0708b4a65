// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/daemon"
	"imgward/fs/mounttable"
	"imgward/guard"
)

// images looks at what running VMs use: is it below a view, protected there, and was it opened through it?
func (h *Host) images(context.Context) []Finding {
	var list []Finding
	protected := 0
	for _, v := range h.Views {
		for i := range v.Images {
			img := &v.Images[i]
			switch {
			case img.Path == "", !v.Reachable: // the view warns of what cannot be read, and of what leads past it
			case img.Unprotected != "" && img.Unprotected != v.Unprotected:
				list = append(list, problem(fmt.Sprintf("%s (%s) is in use and not protected: %s",
					filepath.Join(v.Mountpoint, img.Path), user(img), img.Unprotected), "imgward policy show "+v.Mountpoint+"; imgward-policy(5)"))
			case img.Unprotected == "":
				protected++
			}
			list = append(list, besides(&v, img)...)
		}
	}
	for i := range h.Elsewhere {
		if f := elsewhere(&h.Elsewhere[i]); f != nil {
			list = append(list, *f)
		}
	}
	slices.SortStableFunc(list, func(a, b Finding) int { return strings.Compare(a.What, b.What) })
	if protected > 0 {
		list = append(list, ok(fmt.Sprintf("%d images in use are protected", protected)))
	}
	return list
}

// besides notes who does not go through the view. Where that is not in place, it is what one does not do.
func besides(v *View, img *control.Image) (list []Finding) {
	if v.Backing != v.Mountpoint {
		return nil
	}
	for _, pid := range img.Beside {
		list = append(list, note(fmt.Sprintf("%s was opened by pid %d before the view was mounted, or beside it", filepath.Join(v.Mountpoint, img.Path), pid),
			"it is protected all the same; at the VM's next start or migration its I/O goes through the view"))
	}
	return list
}

// elsewhere is nil for what is no image to mount a view for.
func elsewhere(img *control.Image) *Finding {
	name, u := img.Path, img.Uses[0]
	if name == "" {
		name = "an image that nothing names"
	}
	var f Finding
	switch {
	case u.Problem != "":
		f = problem(fmt.Sprintf("%s cannot be read (%s), so it is not known what is in use", name, u.Problem), "see who may read it, and what is mounted there")
	case img.Block:
		f = note(fmt.Sprintf("%s (%s) is a block device: a view protects files only", name, user(img)),
			"imgward who "+name+" before anything is done to it")
	case u.Role == guard.RoleNVRAM:
		f = note(fmt.Sprintf("%s (%s) is below no view", name, user(img)), "it holds the firmware's variables; to protect it: "+mounting(name))
	case noImage(name, &u):
		return nil
	default:
		f = problem(fmt.Sprintf("%s (%s) is below no view: it is not protected", name, user(img)), mounting(name))
	}
	return &f
}

// mounting is how to protect a file: a view over its directory, if that is a place for one.
func mounting(name string) string {
	dir := filepath.Dir(name)
	if daemon.CheckPlace(dir) != nil {
		return "move it to a directory of its own, below " + dir + " or elsewhere, and imgward mount that"
	}
	return "imgward mount " + dir
}

// user says in a few words who uses an image: "disk of vm", "pid 1234".
func user(img *control.Image) string {
	u := img.Uses[0]
	switch {
	case u.Domain != "":
		return string(u.Role) + " of " + u.Domain
	case u.Program != "":
		return fmt.Sprintf("%s, pid %d", u.Program, u.PID)
	case u.PID != 0:
		return fmt.Sprintf("pid %d", u.PID)
	}
	return "its locks are held"
}

// noImage says whether what a VM uses is no image of its own: what boots it, and, of what it merely has open, what a package
// installed, what has no name any more, and what is in memory.
func noImage(name string, u *guard.Use) bool {
	switch u.Role {
	case guard.RoleKernel, guard.RoleInitrd, guard.RoleDTB, guard.RoleLoader:
		return true
	}
	if u.Evidence != guard.EvidenceProcess {
		return false
	}
	return guard.Within(name, "/usr") || strings.HasSuffix(name, " (deleted)") || inMemory(name)
}

// inMemory says whether a file is on a file system of memory, or of the kernel's own making. The mount table tells: the file
// system itself may not answer.
func inMemory(name string) bool {
	t, err := mounttable.Now()
	if err != nil {
		return false
	}
	m := t.At(name)
	return m != nil && slices.Contains([]string{"tmpfs", "ramfs", "hugetlbfs", "proc", "sysfs", "cgroup", "cgroup2"}, m.FSType)
}

// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/guard/policy"
)

// passthroughSince is the first kernel that lets FUSE pass reads and writes through (CONFIG_FUSE_PASSTHROUGH).
const passthroughMajor, passthroughMinor = 6, 9

func (h *Host) kernel(context.Context) []Finding {
	var list []Finding
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return []Finding{problem("uname: "+err.Error(), "")}
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		list = append(list, note("the kernel's version "+release+" is not understood", ""))
	} else if major < passthroughMajor || major == passthroughMajor && minor < passthroughMinor {
		list = append(list, note("Linux "+release+" has no FUSE passthrough: reads and writes go through the daemon",
			"Linux 6.9 or later is faster; protection is the same"))
	} else {
		list = append(list, ok("Linux "+release+" can pass reads and writes through"))
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		list = append(list, problem("there is no /dev/fuse", "modprobe fuse"))
	}
	return list
}

// policy looks at the policies in force; without any view, at the one that a view would begin with.
func (h *Host) policy(context.Context) []Finding {
	if len(h.Views) == 0 {
		return []Finding{h.defaultPolicy()}
	}
	var list []Finding
	var mountpoints []string
	for _, v := range h.Views {
		mountpoints = append(mountpoints, v.Mountpoint)
	}
	checked := map[string]bool{}
	for _, v := range h.Views {
		list = append(list, ok(fmt.Sprintf("in force for %s is %s", v.Mountpoint, v.Policy.Source)))
		if checked[v.Policy.Source] {
			continue
		}
		checked[v.Policy.Source] = true
		for _, trap := range v.Policy.Traps(mountpoints) {
			list = append(list, problem(v.Policy.Source+" does not do what it says: "+trap, "imgward-policy(5); imgward policy check"))
		}
	}
	return list
}

func (h *Host) defaultPolicy() Finding {
	_, err := policy.Load(h.Policy)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ok("there is no " + h.Policy + ": a view begins with the preset default")
	case err != nil:
		return problem(err.Error(), "correct it; imgward policy check finds all mistakes")
	}
	return ok(h.Policy + " is valid")
}

func (h *Host) views(context.Context) []Finding {
	var list []Finding
	for _, dir := range h.Dead {
		list = append(list, problem(dir+" is a dead view: no daemon serves it", "umount -l "+dir+", and mount it again"))
	}
	if len(h.Views) == 0 {
		return append(list, problem("no view is mounted: nothing is protected", "imgward mount /var/lib/libvirt/images"))
	}
	for _, v := range h.Views {
		switch {
		case !v.Reachable: // a warning says why
		case v.Unprotected == "":
			list = append(list, ok(v.Mountpoint+" is protected"))
		default:
			list = append(list, problem(v.Mountpoint+" is not protected: "+v.Unprotected, "imgward policy show "+v.Mountpoint+"; imgward-policy(5)"))
		}
		if !v.Passthrough {
			list = append(list, note(v.Mountpoint+": reads and writes go through the daemon", ""))
		}
		for _, w := range v.Warnings {
			list = append(list, problem(v.Mountpoint+": "+w, "see imgward status and the log"))
		}
	}
	return list
}

// confinement looks at AppArmor and SELinux.
func (h *Host) confinement(context.Context) []Finding {
	var list []Finding
	if text("/sys/module/apparmor/parameters/enabled") == "Y" {
		list = append(list, ok("AppArmor is on: domains reach images by the same paths, so its rules fit (docs/security.md)"))
	}
	if text("/sys/fs/selinux/enforce") == "1" {
		if state := text("/sys/fs/selinux/booleans/virt_use_fusefs"); !strings.HasPrefix(state, "1") {
			list = append(list, problem("SELinux keeps QEMU from FUSE file systems", "setsebool -P virt_use_fusefs on"))
		} else {
			list = append(list, ok("SELinux lets QEMU use FUSE file systems"))
		}
	}
	return list
}

// text is the content of a small file of the kernel's; empty if there is none.
func text(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

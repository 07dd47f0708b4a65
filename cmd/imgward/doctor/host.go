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

func (h *Host) policy(context.Context) []Finding {
	_, err := policy.Load(h.Policy)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{ok("there is no " + h.Policy + ": the preset default holds")}
	case err != nil:
		return []Finding{problem(err.Error(), "mend it, then imgward policy reload")}
	}
	return []Finding{ok(h.Policy + " is valid")}
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
		list = append(list, ok(v.Mountpoint+" is protected"))
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

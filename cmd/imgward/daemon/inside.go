// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os"
	"path/filepath"

	"imgward/cmd/imgward/control"
	"imgward/guard"
)

// checkOutside refuses a view in a place for none, and one that would show what the daemon itself opens by its path: a successor, which has to open it
// before it serves, would wait for itself.
func (f *Flags) checkOutside(mountpoint, policy string) error {
	if err := CheckPlace(mountpoint); err != nil {
		return err
	}
	if policy == "" {
		policy = DefaultPolicy
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	for _, p := range []struct{ what, path, instead string }{
		{"the log", f.logPath(), "--log FILE elsewhere"},
		{"the policy", policy, "-o policy=FILE elsewhere"},
		{"the program", program, "install it elsewhere"},
	} {
		if p.path == "" {
			continue
		}
		if real := resolveExisting(p.path); guard.Within(real, mountpoint) {
			return fmt.Errorf("%s %s would be inside the view, whose daemon would wait for itself to open it: %s", p.what, p.path, p.instead)
		}
	}
	return nil
}

// CheckPlace refuses a view over what imgward, libvirt or the host need while no worker serves: they would wait for each
// other. The directory must be absolute and free of symbolic links.
func CheckPlace(dir string) error {
	const instead = "mount a directory further down, which holds images"
	for _, p := range []struct {
		what, path string
		below      bool // what is inside it is no place either
	}{
		{"the runtime directory", control.RunDir, true},
		{"the device", "/dev/fuse", false},
		{"the kernel's", "/proc", true},
		{"the kernel's", "/sys", true},
		{"the system's programs in", "/usr/bin", false},
		{"the policy", DefaultPolicy, false},
		{"libvirt's sockets and status files in", "/run/libvirt", true},
		{"libvirt's sockets in", "/var/lib/libvirt/qemu", false},
	} {
		real := resolveExisting(p.path)
		switch {
		case guard.Within(real, dir):
			return fmt.Errorf("%s %s would be inside the view, whose daemon would wait for itself: %s", p.what, p.path, instead)
		case p.below && guard.Within(dir, real):
			return fmt.Errorf("%s is in %s, which holds no images: %s", dir, p.path, instead)
		}
	}
	return nil
}

// resolveExisting follows the symbolic links of an absolute path as far as it exists.
func resolveExisting(path string) string {
	rest := ""
	for {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Join(real, rest)
		}
		if path == "/" {
			return filepath.Join(path, rest)
		}
		// A link that leads to nothing yet is where a file will be made.
		if target, err := os.Readlink(path); err == nil {
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(path), target)
			}
			return filepath.Join(resolveExisting(filepath.Dir(target)), filepath.Base(target), rest)
		}
		path, rest = filepath.Dir(path), filepath.Join(filepath.Base(path), rest)
	}
}

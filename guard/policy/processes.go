// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"slices"
)

// binDirs is where distributions install programs; /bin and /sbin are the same directories everywhere by now, and the
// kernel prints an executable's path without symbolic links.
var binDirs = [...]string{"/usr/bin", "/usr/sbin", "/usr/libexec", "/usr/local/bin"}

// DefaultProcesses knows the VMMs, managers and disk tools of the distributions.
func DefaultProcesses() Processes {
	return Processes{VMMs: defaultVMMs(), Managers: defaultManagers(), Aligned: defaultAligned()}
}

func defaultVMMs() []string { return inBinDirs(VMMNames()...) }

// VMMNames are globs of what the executables of VMMs are called. Wherever it lies, a program of such a name is evidence
// that the images which it has open are in use.
func VMMNames() []string {
	return []string{"qemu-system-*", "qemu-kvm", "kvm", "qemu-nbd", "qemu-storage-daemon", "cloud-hypervisor", "firecracker",
		"crosvm"}
}

// defaultManagers: libvirt's daemons, and the helpers that outlive their parent's fork.
func defaultManagers() []string {
	return append(inBinDirs("libvirtd", "virtqemud", "virtchd", "virtlxcd", "virtxend", "virtvboxd", "virtstoraged",
		"virtlockd", "virtlogd", "virtproxyd", "virtsecretd", "virtnetworkd", "virtinterfaced", "virtnodedevd",
		"virtnwfilterd", "libvirt_iohelper", "libvirt_lxc", "libvirt_parthelper"),
		"/usr/lib/libvirt/libvirt_*")
}

// defaultAligned: imgcp is also known beside this very program, wherever the two have been put.
func defaultAligned() []string {
	globs := inBinDirs("qemu-img", "qemu-io", "imgcp", "fio")
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), "imgcp"); !slices.Contains(globs, beside) {
			globs = append(globs, beside)
		}
	}
	return globs
}

func inBinDirs(names ...string) []string {
	var globs []string
	for _, dir := range binDirs {
		for _, name := range names {
			globs = append(globs, dir+"/"+name)
		}
	}
	return globs
}

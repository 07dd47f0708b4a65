// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Unsupported says why the layer cannot be loaded here, and what to do about it.
type Unsupported struct {
	Reason string
	Do     string // empty: nothing helps but another kernel
}

func (u *Unsupported) Error() string {
	if u.Do == "" {
		return u.Reason
	}
	return u.Reason + ": " + u.Do
}

// Supported says what the kernel lacks, as an *Unsupported, and nil where nothing does.
func Supported() error {
	if missing := lacks(); missing != "" {
		return &Unsupported{"this process may not load programs into the kernel (no " + missing + ")", "run it as root of the host, or give the container that capability"}
	}
	active, err := os.ReadFile("/sys/kernel/security/lsm")
	if errors.Is(err, os.ErrNotExist) {
		return &Unsupported{"the kernel does not say which security modules are active", "mount -t securityfs securityfs /sys/kernel/security"}
	}
	if err != nil {
		return fmt.Errorf("second layer: %w", err)
	}
	modules := strings.Split(strings.TrimSpace(string(active)), ",")
	if !slices.Contains(modules, "bpf") {
		return &Unsupported{"BPF is not among the active security modules (" + strings.Join(modules, ",") + ")",
			"boot with lsm=" + strings.Join(append(modules, "bpf"), ",") + " (if the kernel has CONFIG_BPF_LSM)"}
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return &Unsupported{"the kernel does not describe its types (no /sys/kernel/btf/vmlinux)", "use a kernel with CONFIG_DEBUG_INFO_BTF"}
	}
	if lockdown, _ := os.ReadFile("/sys/kernel/security/lockdown"); strings.Contains(string(lockdown), "[confidentiality]") {
		return &Unsupported{"the kernel is locked down for confidentiality", "boot with lockdown=integrity"}
	}
	return nil
}

// lacks names the capability that is missing (capabilities(7)): CAP_SYS_ADMIN has all of it, as before Linux 5.8.
func lacks() string {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return ""
	}
	have := func(c uint) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	switch {
	case have(unix.CAP_SYS_ADMIN):
		return ""
	case !have(unix.CAP_BPF):
		return "CAP_BPF"
	case !have(unix.CAP_PERFMON):
		return "CAP_PERFMON"
	}
	return ""
}

// errNotSupported is ENOTSUPP, which the kernel keeps to itself and bpf(2) lets out.
const errNotSupported = syscall.Errno(524)

// unsupported makes an *Unsupported of an error of bpf(2), where it is one of the kernel's abilities.
func unsupported(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return &Unsupported{err.Error(), "it takes root's capabilities CAP_BPF and CAP_PERFMON"}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES), errors.Is(err, errNotSupported), errors.Is(err, os.ErrNotExist):
		return &Unsupported{err.Error(), ""}
	}
	return err
}

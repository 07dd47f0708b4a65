// SPDX-License-Identifier: Apache-2.0

package need

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Lack is something that is missing, and what to do about it.
type Lack struct{ What, Do string }

func (l Lack) String() string { return l.What + " (" + l.Do + ")" }

// Thing is something that a test may need; it returns nil when it is there.
type Thing func() *Lack

// Missing asks for all of them, so that everything that is missing is known at once.
func Missing(things ...Thing) []Lack {
	var lacks []Lack
	for _, thing := range things {
		if l := thing(); l != nil {
			lacks = append(lacks, *l)
		}
	}
	return lacks
}

// Root is user 0.
func Root() *Lack {
	if os.Geteuid() == 0 {
		return nil
	}
	return &Lack{"not root", "run it with sudo"}
}

// Mounting is the right to mount: CAP_SYS_ADMIN in the first user namespace, where alone block devices and file handles may
// be used. Somebody who is not root is told that by Root.
func Mounting() *Lack {
	if os.Geteuid() != 0 {
		return nil
	}
	const privileged = "in a container: docker run --privileged"
	if users, err := os.ReadFile("/proc/self/uid_map"); err == nil && len(strings.Fields(string(users))) == 3 &&
		strings.Fields(string(users))[2] != "4294967295" {
		return &Lack{"root of a user namespace only, which may not mount", "run it on the host, or " + privileged}
	}
	for _, c := range []struct {
		bit  uint
		name string
	}{{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, {unix.CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"}} {
		if !capable(c.bit) {
			return &Lack{"no " + c.name, privileged}
		}
	}
	return nil
}

// capable reports whether this process has an effective capability.
func capable(bit uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[bit/32].Effective&(1<<(bit%32)) != 0
}

// FUSE is /dev/fuse.
func FUSE() *Lack {
	return device("/dev/fuse", "modprobe fuse; in a container: docker run --privileged --device /dev/fuse")
}

// Loops are loop devices.
func Loops() *Lack {
	return device("/dev/loop-control", "modprobe loop; in a container: docker run --privileged -v /dev:/dev")
}

// Terminals are pseudo-terminals.
func Terminals() *Lack {
	return device("/dev/ptmx", "mount a devpts on /dev/pts; in a container: docker run -v /dev:/dev")
}

// device opens one for reading and writing. That somebody who is not root may not is what Root says.
func device(path, do string) *Lack {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return nil
	}
	if os.Geteuid() != 0 && errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return &Lack{fmt.Sprintf("no %s: %v", path, errors.Unwrap(err)), do}
}

// Space is room for images, in a directory or where it will be made.
func Space(dir string, gib uint64) Thing {
	return func() *Lack {
		var st unix.Statfs_t
		at := dir
		for unix.Statfs(at, &st) != nil && at != "/" {
			at = filepath.Dir(at)
		}
		if free := st.Bavail * uint64(st.Bsize) >> 30; free < gib {
			return &Lack{fmt.Sprintf("%d GiB free in %s, of the %d that are needed", free, dir, gib), "make room there"}
		}
		return nil
	}
}

// Tools are programs in PATH, as `make deps` installs them.
func Tools(names ...string) Thing {
	return func() *Lack {
		var absent []string
		for _, name := range names {
			if _, err := exec.LookPath(name); err != nil {
				absent = append(absent, name)
			}
		}
		if absent == nil {
			return nil
		}
		return &Lack{"no " + strings.Join(absent, ", "), "make deps installs what tests need"}
	}
}

// Cache is where `make deps` keeps kernels for guests.
func Cache() string {
	if dir := os.Getenv("IMGWARD_TEST_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/imgward-test"
}

// GuestKernel is a kernel in the cache: "kernel" for Debian's cloud kernel, "stock" for its kernel for real machines.
func GuestKernel(name string) Thing {
	return func() *Lack {
		if _, err := os.Stat(Cache() + "/" + name); err != nil {
			return &Lack{"no guest kernel in " + Cache() + "/" + name, "make deps fetches it"}
		}
		return nil
	}
}

// View is all that a view takes.
func View() []Thing { return []Thing{Root, Mounting, FUSE} }

// Domains is all that the end-to-end tests and the demo take.
func Domains() []Thing {
	return append(View(), Loops, Space("/var/lib", 4),
		Tools("libvirtd", "virtlogd", "virsh", "qemu-img", "qemu-system-x86_64"), GuestKernel("kernel"))
}

// KVM skips the test unless the kernel can make a virtual machine, as a VMM does with KVM_CREATE_VM.
func KVM(t testing.TB) {
	t.Helper()
	const createVM = 0xae01
	dev, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(dev)
		var vm int
		if vm, err = unix.IoctlRetInt(dev, createVM); err == nil {
			unix.Close(vm)
			return
		}
	}
	Kernel(t, fmt.Sprintf("KVM that works here (/dev/kvm: %v)", err))
}

// NoKVM says what it means that guests run under emulation; "" where they do not. It is a hint: nothing needs KVM.
func NoKVM() string {
	cpu, err := os.ReadFile("/proc/cpuinfo")
	_, kvm := os.Stat("/dev/kvm")
	if err == nil && kvm == nil && (strings.Contains(string(cpu), " vmx") || strings.Contains(string(cpu), " svm")) {
		return ""
	}
	return "no KVM on this machine: guests run on an emulated CPU, and take several times as long"
}

package guard

// Policy is what the administrator decided. DefaultPolicy is right for a libvirt host; a *Policy is never changed once
// a Guard has it.
type Policy struct {
	// VMMs are the executables, by globs of absolute paths, that count as virtual machine monitors.
	VMMs []string
	// Managers are the executables whose processes, with all that they fork, count as managers.
	Managers []string
}

// DefaultPolicy protects the images of running domains, and knows the VMMs and managers of the distributions.
func DefaultPolicy() *Policy {
	return &Policy{VMMs: defaultVMMs(), Managers: defaultManagers()}
}

// binDirs is where distributions install programs; /bin and /sbin are the same directories everywhere by now, and the
// kernel prints an executable's path without symbolic links.
var binDirs = [...]string{"/usr/bin", "/usr/sbin", "/usr/libexec", "/usr/local/bin"}

func defaultVMMs() []string {
	return inBinDirs("qemu-system-*", "qemu-kvm", "kvm", "qemu-nbd", "qemu-storage-daemon", "cloud-hypervisor",
		"firecracker", "crosvm")
}

// defaultManagers: libvirt's daemons, and the helpers that outlive their parent's fork.
func defaultManagers() []string {
	return append(inBinDirs("libvirtd", "virtqemud", "virtchd", "virtlxcd", "virtxend", "virtvboxd", "virtstoraged",
		"virtlockd", "virtlogd", "virtproxyd", "virtsecretd", "virtnetworkd", "virtinterfaced", "virtnodedevd",
		"virtnwfilterd", "libvirt_iohelper", "libvirt_lxc", "libvirt_parthelper"),
		"/usr/lib/libvirt/libvirt_*")
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

// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	_ "embed"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
)

//go:embed domain.xml.tmpl
var domainXML string

//go:embed disk.xml.tmpl
var diskXML string

// Disk is one <disk> of a domain.
type Disk struct {
	Target string // vda, or sda for a drive
	File   string // "": an empty drive
	Format string // "": raw
	CDROM  bool
	// Attributes of <driver>, as libvirt names them; empty: not given.
	Cache, IO, Discard string
	Shareable          bool
	Transient          bool
}

// Bus is virtio for disks and SCSI for drives: QEMU's i440fx IDE bus cannot be hot-plugged.
func (d Disk) Bus() string {
	if d.CDROM {
		return "scsi"
	}
	return "virtio"
}

// Type is what the <driver> element says.
func (d Disk) Type() string {
	if d.Format == "" {
		return "raw"
	}
	return d.Format
}

// XML is the <disk> element, as for `virsh attach-device`.
func (d Disk) XML(t testing.TB) string { return render(t, diskXML, d) }

// Spec describes a domain.
type Spec struct {
	Name  string
	Disks []Disk
	Guest bool // boots the test guest (see NewAgent); otherwise the firmware finds nothing to boot and idles
}

// Domain is a defined domain. The test's cleanup destroys and undefines it.
type Domain struct {
	Spec
	host *Host
}

// Define defines a domain.
func (h *Host) Define(t testing.TB, spec Spec) *Domain {
	t.Helper()
	d := &Domain{Spec: spec, host: h}
	h.Virsh(t, "define", h.WriteXML(t, spec.Name+".xml", h.DomainXML(t, spec))).OK(t)
	t.Cleanup(func() { d.remove(t) })
	return d
}

// Defined is a domain that what is tested has defined. The test's cleanup removes it as well.
func (h *Host) Defined(t testing.TB, spec Spec) *Domain {
	t.Helper()
	d := &Domain{Spec: spec, host: h}
	t.Cleanup(func() { d.remove(t) })
	return d
}

// Run defines a domain and starts it; for a guest it also waits until its agent answers.
func (h *Host) Run(t testing.TB, spec Spec) *Domain {
	t.Helper()
	d := h.Define(t, spec)
	d.Start(t)
	return d
}

// Start starts the domain; for a guest it also waits until its agent answers.
func (d *Domain) Start(t testing.TB) {
	t.Helper()
	d.Virsh(t, "start").OK(t)
	if d.Guest {
		d.NewAgent(t).Ping(t)
	}
}

// Virsh runs a virsh command whose first argument is the domain.
func (d *Domain) Virsh(t testing.TB, command string, args ...string) Result {
	t.Helper()
	return d.host.Virsh(t, append([]string{command, d.Name}, args...)...)
}

// State is what `virsh domstate` says: "running", "shut off", "paused", …
func (d *Domain) State(t testing.TB) string {
	t.Helper()
	return d.Virsh(t, "domstate").OK(t)
}

// WaitState waits until the domain is in a state.
func (d *Domain) WaitState(t testing.TB, state string) {
	t.Helper()
	Until(t, d.Name+" is "+state, func() bool { return d.State(t) == state })
}

// PID is the process id of the domain's QEMU, as its host counts.
func (d *Domain) PID(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile(d.host.root + "/run/libvirt/qemu/" + d.Name + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// remove is the cleanup. It needs a libvirtd: a test that stopped it has to start it again.
func (d *Domain) remove(t testing.TB) {
	d.Virsh(t, "destroy") // fails if it is off
	d.Virsh(t, "undefine", "--managed-save", "--snapshots-metadata", "--checkpoints-metadata", "--nvram")
	if slices.Contains(strings.Fields(d.host.Virsh(t, "list", "--all", "--name").OK(t)), d.Name) {
		t.Errorf("%s: cannot be removed", d.Name)
	}
}

// WriteXML writes a document for virsh to read and returns its path.
func (h *Host) WriteXML(t testing.TB, name, xml string) string {
	t.Helper()
	path := filepath.Join(h.Dir, name)
	if err := os.WriteFile(path, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// DomainXML is the definition of a domain.
func (h *Host) DomainXML(t testing.TB, spec Spec) string {
	t.Helper()
	root := os.Getenv(rootEnv)
	var disks strings.Builder
	for _, disk := range spec.Disks {
		disks.WriteString(disk.XML(t))
	}
	return render(t, domainXML, map[string]any{
		"Spec": spec, "Type": accelerator(), "Emulator": h.emulator(), "Disks": disks.String(),
		"Kernel": filepath.Join(root, kernelFile), "Initrd": filepath.Join(root, initrdFile),
		"Agent": agentSocket(h, spec.Name), "Console": filepath.Join(h.Dir, spec.Name+".console.log"),
		"Cmdline": cmdline,
	})
}

// cmdline leaves out what only takes an emulated CPU its time: a third of the whole start. On a busy machine an emulated
// timer is so late that the kernel takes it for broken, and panics: no_timer_check.
const cmdline = "console=ttyS0 panic=-1 quiet nokaslr mitigations=off cryptomgr.notests acpi=noirq no_timer_check " +
	"initcall_blacklist=init_kprobe_trace,load_system_certificate_list"

// accelerator is the domain type: "kvm" only where the CPU itself virtualises. A /dev/kvm without that (nested under
// some cloud hypervisors) starts domains, but guests hang in them.
func accelerator() string {
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if _, kvmErr := os.Stat("/dev/kvm"); err != nil || kvmErr != nil {
		return "qemu"
	}
	if bytes.Contains(cpu, []byte(" vmx")) || bytes.Contains(cpu, []byte(" svm")) {
		return "kvm"
	}
	return "qemu"
}

func render(t testing.TB, text string, data any) string {
	t.Helper()
	var out strings.Builder
	if err := template.Must(template.New("xml").Parse(text)).Execute(&out, data); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func itoa(n int) string { return strconv.Itoa(n) }

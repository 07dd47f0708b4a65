// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"encoding/xml"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	imgcopy "imgward/copy"
	"imgward/copy/dest"
	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
)

// host is a libvirt that has nothing, and remembers. What libvirt makes of the XML is tested with a real one (test/evacuation).
type host struct {
	defined   []string
	snapshots []string
	refuses   error // to redefine a snapshot
	undefined int
	started   int
	saved     []string // descriptions of saved states
	full      error    // of a saved state that has no room
}

func (h *host) Domain(context.Context, string) (libvirtd.Domain, error) {
	return libvirtd.Domain{}, libvirtd.ErrNoDomain
}
func (h *host) Again(context.Context, libvirtd.Domain) (libvirtd.Domain, error) {
	return libvirtd.Domain{}, libvirtd.ErrNoDomain
}
func (h *host) Machines(context.Context, string) ([]string, error) { return []string{"pc"}, nil }
func (h *host) NetworkXML(_ context.Context, name string) (string, error) {
	if name == "default" {
		return "<network/>", nil
	}
	return "", errors.New("no such network")
}
func (h *host) Define(_ context.Context, xml string) (libvirtd.Domain, error) {
	h.defined = append(h.defined, xml)
	return libvirtd.Domain{}, nil
}
func (h *host) RedefineSnapshot(_ context.Context, _ libvirtd.Domain, s libvirtd.Metadata) error {
	h.snapshots = append(h.snapshots, s.XML)
	return h.refuses
}
func (h *host) RedefineCheckpoint(context.Context, libvirtd.Domain, string) error { return nil }
func (h *host) RewriteSaved(_ context.Context, _ string, change func(string) (string, error)) error {
	text, err := change(domainXML)
	h.saved = append(h.saved, text)
	return errors.Join(err, h.full)
}
func (h *host) Start(context.Context, libvirtd.Domain) error    { h.started++; return nil }
func (h *host) Undefine(context.Context, libvirtd.Domain) error { h.undefined++; return nil }

const domainXML = `<!-- of libvirt --><domain type='qemu'>
  <name>vm</name>
  <uuid>5f0cd8f8-1e3f-4b4e-8ac3-0f2f7f0d9d3b</uuid>
  <metadata><x:y xmlns:x="http://x"><x:name>kept &amp; as it is</x:name></x:y></metadata>
  <os><type arch='x86_64' machine='pc'>hvm</type><nvram template='/t'>/old/nvram/vm_VARS.fd</nvram></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/old/top.qcow2' index='1'/>
      <backingStore type='file'><format type='raw'/><source file='/old/base.img'/><backingStore/></backingStore>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
    EXTRA
    <interface type='network'><mac address='52:54:00:00:00:01'/><source network='lan'/></interface>
  </devices>
</domain>
`

const snapshotXML = `<domainsnapshot><name>before</name><disks><disk name='vda' snapshot='external' type='file'>` +
	`<source file='/old/top.qcow2'/></disk></disks><domain type='qemu'><name>vm</name>` +
	`<uuid>5f0cd8f8-1e3f-4b4e-8ac3-0f2f7f0d9d3b</uuid><devices><disk type='file'><source file='/old/base.img'/>` +
	`<target dev='vda'/></disk></devices></domain></domainsnapshot>`

// copied is a copy of a domain with one overlay on a raw base.
type copied struct {
	*archive.Archive
	place   string
	libvirt *host
}

func newCopied(t *testing.T, extra string) *copied {
	t.Helper()
	a, err := archive.Create(t.TempDir(), "vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	c := &copied{a, filepath.Join(t.TempDir(), "new"), new(host)}
	c.write(t, archive.InactiveXML, strings.Replace(domainXML, "EXTRA", extra, 1))
	c.write(t, "snapshots/before.xml", snapshotXML)
	c.write(t, "nvram/vm_VARS.fd", "variables")
	c.write(t, "tpm/tpm2/tpm2-00.permall", "state")
	c.write(t, "disks/base.img", strings.Repeat("base", 64<<10))
	qemu(t, "create", "-q", "-f", "qcow2", "-u", "-b", "base.img", "-F", "raw", c.Path("disks/top.qcow2"), "1M")
	err = a.Update(func(m *archive.Manifest) {
		*m = archive.Manifest{Type: m.Type, Version: m.Version, Domain: "vm", UUID: "5f0cd8f8-1e3f-4b4e-8ac3-0f2f7f0d9d3b",
			Method: archive.Offline, Finished: time.Now(), Files: []archive.File{
				c.file(t, archive.InactiveXML, archive.File{Kind: archive.XML}),
				c.file(t, "disks/top.qcow2", archive.File{Kind: archive.Disk, Target: "vda", Format: "qcow2", Backing: "disks/base.img", Source: "/old/top.qcow2"}),
				c.file(t, "disks/base.img", archive.File{Kind: archive.Backing, Target: "vda", Format: "raw", Source: "/old/base.img"}),
				c.file(t, "nvram/vm_VARS.fd", archive.File{Kind: archive.NVRAM, Source: "/old/nvram/vm_VARS.fd"}),
				c.file(t, "tpm/tpm2/tpm2-00.permall", archive.File{Kind: archive.TPM,
					Source: "/old/swtpm/5f0cd8f8-1e3f-4b4e-8ac3-0f2f7f0d9d3b/tpm2/tpm2-00.permall"}),
				c.file(t, "snapshots/before.xml", archive.File{Kind: archive.Snapshot, Name: "before"}),
			}}
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *copied) write(t *testing.T, name, text string) {
	t.Helper()
	if err := c.WriteFile(name, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func (c *copied) file(t *testing.T, name string, f archive.File) archive.File {
	t.Helper()
	sum, size, err := imgcopy.Digest(context.Background(), c.Path(name), imgcopy.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	f.Path, f.State, f.Size, f.BLAKE3 = name, archive.Copied, size, sum.String()
	return f
}

func (c *copied) options() Options {
	return Options{Conn: c.libvirt, Copy: imgcopy.Defaults(), Maps: []Map{{"", "/old", c.place}}}
}

func (c *copied) restore(o Options) error {
	p, err := New(context.Background(), c.Dir, o)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Run(context.Background())
}

func qemu(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %q: %v: %s", args, err, out)
	}
}

// TestRestored: everything is in its place, nothing names the old one, and what did not have to change has not.
func TestRestored(t *testing.T) {
	c := newCopied(t, "")
	if err := c.restore(c.options()); err != nil {
		t.Fatal(err)
	}
	qemu(t, "check", "-q", filepath.Join(c.place, "top.qcow2"))
	for _, text := range append(c.libvirt.snapshots, c.libvirt.defined...) {
		if strings.Contains(text, "/old") {
			t.Errorf("it leads to where it was:\n%s", text)
		}
	}
	want := strings.NewReplacer("/old", c.place, " index='1'", "", "EXTRA", "").Replace(domainXML)
	if got := c.libvirt.defined[0]; canonical(t, got) != canonical(t, want) {
		t.Errorf("defined:\n%s\nwant:\n%s", got, want)
	}
	if left, _ := filepath.Glob(filepath.Join(c.place, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if err := c.restore(c.options()); !errors.Is(err, dest.ErrExists) {
		t.Errorf("a second time: %v", err)
	}
}

// canonical is XML without its quotes.
func canonical(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	e := xml.NewEncoder(&out)
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if err != nil {
			break
		}
		if err := e.EncodeToken(token); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestAs: another name has everything of its own.
func TestAs(t *testing.T) {
	c := newCopied(t, "")
	o := c.options()
	o.As = "second"
	if err := c.restore(o); err != nil {
		t.Fatal(err)
	}
	for _, text := range append(c.libvirt.snapshots, c.libvirt.defined...) {
		for _, old := range []string{"<name>vm<", "5f0cd8f8", "52:54:00:00:00:01", "vm_VARS"} {
			if strings.Contains(text, old) {
				t.Errorf("%s is still there:\n%s", old, text)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(c.place, "nvram/second_VARS.fd")); err != nil {
		t.Error(err)
	}
	tpm, err := filepath.Glob(filepath.Join(c.place, "swtpm/*/tpm2/tpm2-00.permall"))
	if err != nil || len(tpm) != 1 || !strings.Contains(c.libvirt.defined[0], "<uuid>"+filepath.Base(filepath.Dir(filepath.Dir(tpm[0])))+"<") {
		t.Fatalf("the TPM's state is not where the new UUID's is: %q, %v", tpm, err)
	}
	if st, err := os.Stat(filepath.Dir(filepath.Dir(tpm[0]))); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("swtpm's user cannot reach it: %v, %v", st.Mode(), err)
	}
}

// TestRefused: what leads out of the copy, or is not what was copied, is refused before anything is written.
func TestRefused(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		extra string
		harm  func(t *testing.T, c *copied)
		want  error
	}{
		"header names the original": {harm: func(t *testing.T, c *copied) {
			qemu(t, "rebase", "-u", "-f", "qcow2", "-b", outside, "-F", "raw", c.Path("disks/top.qcow2"))
		}, want: ErrOutside},
		"header names another directory": {harm: func(t *testing.T, c *copied) {
			qemu(t, "rebase", "-u", "-f", "qcow2", "-b", "../../../secret", "-F", "raw", c.Path("disks/top.qcow2"))
		}, want: ErrOutside},
		"header names nothing": {harm: func(t *testing.T, c *copied) {
			qemu(t, "rebase", "-u", "-f", "qcow2", "-b", "", c.Path("disks/top.qcow2"))
		}, want: ErrOutside},
		"an image is a link": {harm: func(t *testing.T, c *copied) {
			if err := errors.Join(os.Remove(c.Path("disks/base.img")), os.Symlink(outside, c.Path("disks/base.img"))); err != nil {
				t.Fatal(err)
			}
		}},
		"variables are a link": {harm: func(t *testing.T, c *copied) {
			if err := errors.Join(os.Remove(c.Path("nvram/vm_VARS.fd")), os.Symlink(outside, c.Path("nvram/vm_VARS.fd"))); err != nil {
				t.Fatal(err)
			}
		}},
		"a directory is a link": {harm: func(t *testing.T, c *copied) {
			if err := errors.Join(os.RemoveAll(c.Path("tpm")), os.Symlink(filepath.Dir(outside), c.Path("tpm"))); err != nil {
				t.Fatal(err)
			}
		}},
		"a FIFO": {harm: func(t *testing.T, c *copied) {
			if err := errors.Join(os.Remove(c.Path("nvram/vm_VARS.fd")), unix.Mkfifo(c.Path("nvram/vm_VARS.fd"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}},
		"a file is gone": {harm: func(t *testing.T, c *copied) {
			if err := os.Remove(c.Path("nvram/vm_VARS.fd")); err != nil {
				t.Fatal(err)
			}
		}},
		"out of what is mapped": {harm: func(t *testing.T, c *copied) {
			c.update(t, func(m *archive.Manifest) { m.Find("nvram/vm_VARS.fd").Source = "/old/../etc/cron.d/root" })
		}, want: ErrOutside},
		"to a relative place": {harm: func(t *testing.T, c *copied) {
			c.update(t, func(m *archive.Manifest) { m.Find("nvram/vm_VARS.fd").Source = "etc/cron.d/root" })
		}},
		"a disk of the XML": {extra: `<disk type='file' device='disk'><source file='/etc/shadow'/><target dev='vdb'/></disk>`, want: ErrOutside},
		"a network disk": {extra: `<disk type='network' device='disk'><source protocol='rbd' name='pool/image'/><target dev='vdb'/></disk>`,
			want: ErrOutside},
		"below a disk": {extra: `<disk type='file' device='disk'><source file='/old/top.qcow2'/><backingStore type='file'>` +
			`<source file='/etc/shadow'/></backingStore><target dev='vdb'/></disk>`, want: ErrOutside},
		"not whole": {harm: func(t *testing.T, c *copied) {
			c.update(t, func(m *archive.Manifest) { m.Files[1].State = archive.Pending })
		}},
		"two to one place": {harm: func(t *testing.T, c *copied) {
			c.update(t, func(m *archive.Manifest) { m.Files[2].Source = m.Files[1].Source })
		}},
		"something is there": {harm: func(t *testing.T, c *copied) {
			if err := errors.Join(os.MkdirAll(c.place, 0o700), os.WriteFile(c.place+"/top.qcow2", []byte("precious"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}, want: dest.ErrExists},
		"another base is there": {harm: func(t *testing.T, c *copied) {
			if err := errors.Join(os.MkdirAll(c.place, 0o700), os.WriteFile(c.place+"/base.img", []byte("precious"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}, want: dest.ErrExists},
	} {
		t.Run(name, func(t *testing.T) {
			copy := newCopied(t, c.extra)
			if c.harm != nil {
				c.harm(t, copy)
			}
			before := names(copy.place)
			err := copy.restore(copy.options())
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if now := names(copy.place); now != before || len(copy.libvirt.defined) > 0 {
				t.Errorf("something was made: %s, %q", now, copy.libvirt.defined)
			}
		})
	}
}

func (c *copied) update(t *testing.T, change func(*archive.Manifest)) {
	t.Helper()
	if err := c.Update(change); err != nil {
		t.Fatal(err)
	}
}

func names(dir string) string {
	entries, _ := os.ReadDir(dir)
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.Name() + " ")
	}
	return b.String()
}

// TestNetworkDisk: a network disk becomes a file, without its hosts, its encryption in transit and its passwords.
func TestNetworkDisk(t *testing.T) {
	c := newCopied(t, `<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/>
 <auth username='libvirt'><secret type='ceph' uuid='2ec115d7-3a88-3ceb-bc12-0ac909a6fd87'/></auth>
 <source protocol='rbd' name='pool/image' tls='yes' index='4'><host name='mon1' port='6321'/><host name='mon2'/><snapshot name='s'/>
  <auth username='libvirt'><secret type='ceph' usage='u'/></auth><config file='/etc/ceph.conf'/></source>
 <target dev='vdb' bus='virtio'/></disk>`)
	c.write(t, "disks/vdb.raw", strings.Repeat("disk", 64<<10))
	c.update(t, func(m *archive.Manifest) {
		m.Files = append(m.Files, c.file(t, "disks/vdb.raw", archive.File{Kind: archive.Disk, Target: "vdb", Format: "raw", Source: "rbd:pool/image"}))
	})
	o := c.options()
	if err := c.restore(o); err == nil || !strings.Contains(err.Error(), "--map rbd:pool/image=FILE") {
		t.Errorf("without a place: %v", err)
	}
	m, err := ParseMap("rbd:pool/image=" + c.place + "/vdb.img")
	if err != nil {
		t.Fatal(err)
	}
	o.Maps = append(o.Maps, m)
	if err := c.restore(o); err != nil {
		t.Fatal(err)
	}
	want := `<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='` + c.place +
		`/vdb.img'></source><target dev='vdb' bus='virtio'/></disk>`
	if got := strings.Join(strings.Fields(canonical(t, c.libvirt.defined[0])), " "); !strings.Contains(strings.ReplaceAll(got, "> <", "><"),
		canonical(t, want)) {
		t.Errorf("defined:\n%s\nwant in it:\n%s", got, canonical(t, want))
	}
}

// TestSaved: a saved state goes where libvirt looks for it, and names the new places; where that cannot be, it stays in the copy,
// and somebody says so.
func TestSaved(t *testing.T) {
	for _, c := range []struct {
		name    string
		harm    func(*copied, *Options)
		there   bool
		started int
	}{
		{"there", func(_ *copied, o *Options) { o.Start = true }, true, 1},
		{"no room", func(c *copied, _ *Options) { c.libvirt.full = errors.New("new xml too large to fit in file") }, false, 0},
		{"another name", func(_ *copied, o *Options) { o.As = "second" }, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			copy := newCopied(t, "")
			copy.write(t, "save/vm.save", "its memory")
			copy.update(t, func(m *archive.Manifest) {
				m.Files = append(m.Files, copy.file(t, "save/vm.save", archive.File{Kind: archive.ManagedSave, Source: "/old/save/vm.save"}))
			})
			o := copy.options()
			c.harm(copy, &o)
			p, err := New(t.Context(), copy.Dir, o)
			if err == nil {
				err = p.Run(t.Context())
				p.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			if there := exists(copy.place + "/save/vm.save"); there != c.there || copy.libvirt.started != c.started || len(copy.libvirt.defined) != 1 {
				t.Errorf("the state is there: %v, want %v; started %d times", there, c.there, copy.libvirt.started)
			}
			notes := strings.Join(p.Notes, " ")
			if said := strings.Contains(notes, "virsh restore") || strings.Contains(notes, "its old name"); said == c.there {
				t.Errorf("it is said: %q", p.Notes)
			}
			if text := strings.Join(copy.libvirt.saved, ""); strings.Contains(text, "/old") {
				t.Errorf("the state leads to where it was:\n%s", text)
			}
		})
	}
}

// TestDamaged: a copy that has changed since it was made is not restored.
func TestDamaged(t *testing.T) {
	for _, name := range []string{"disks/base.img", "disks/top.qcow2", "nvram/vm_VARS.fd"} {
		c := newCopied(t, "")
		f, err := os.OpenFile(c.Path(name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		st, _ := f.Stat()
		if _, err := f.WriteAt([]byte("X"), st.Size()-1); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := c.restore(c.options()); !errors.Is(err, imgcopy.ErrVerify) {
			t.Errorf("%s: %v", name, err)
		}
		if len(c.libvirt.defined) > 0 {
			t.Errorf("%s: the domain is defined", name)
		}
	}
}

// TestGoesOn: what an interrupted run has placed is not in the way of the next, nor what is shared and the same.
func TestGoesOn(t *testing.T) {
	c := newCopied(t, "")
	c.libvirt.refuses = errors.New("no")
	if err := c.restore(c.options()); err == nil || c.libvirt.undefined != 1 {
		t.Fatalf("%v, undefined %d times", err, c.libvirt.undefined)
	}
	c.libvirt.refuses = nil
	if err := c.restore(c.options()); err != nil {
		t.Error(err)
	}
	again := newCopied(t, "")
	again.place = filepath.Join(t.TempDir(), "another")
	if err := errors.Join(os.Mkdir(again.place, 0o700), os.Link(filepath.Join(c.place, "base.img"), filepath.Join(again.place, "base.img"))); err != nil {
		t.Fatal(err)
	}
	if err := again.restore(again.options()); err != nil {
		t.Error(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"imgward/guard"
)

// domstatus is what libvirt would write of the VM: its second disk is named by a path through a home directory, which the
// worker's sandbox does not show, and in /tmp, which it has one of its own of.
const domstatus = `<domstatus state='running' reason='booted' pid='%s'><domain type='qemu'><name>rhevm</name>
<uuid>11111111-2222-3333-4444-555555555555</uuid><os><type arch='x86_64'>hvm</type></os><devices>
<disk type='file' device='disk'><source file='/home/admin/link/other.img'/><target dev='vdb' bus='virtio'/></disk>
<disk type='file' device='cdrom'><source file='/tmp/link/third.img'/><target dev='sda' bus='sata'/><readonly/></disk>
</devices></domain></domstatus>`

// What the worker knows, and whom it tells, is as without the sandbox.
func TestEvidence(t *testing.T) {
	b := boot(t)
	vm := b.start(t)
	b.run(t, "truncate -s 1M "+images+"/third.img; mkdir -p /home/admin /run/libvirt/qemu; ln -s "+images+" /home/admin/link; ln -s "+images+" /tmp/link")
	b.run(t, "cat >/run/libvirt/qemu/rhevm.xml.new <<'EOF'\n"+fmt.Sprintf(domstatus, vm)+"\nEOF\nmv /run/libvirt/qemu/rhevm.xml.new /run/libvirt/qemu/rhevm.xml")
	for _, image := range []string{"other.img", "third.img"} {
		if out, err := b.try(": >" + images + "/" + image); err == nil || !strings.Contains(out, "busy") {
			t.Errorf("truncating %s: %v %s", image, err, out)
		}
	}

	// The terminal alone is left to tell: dd has nothing else open on it.
	screen := b.run(t, `script -qec "dd if=/dev/zero of=`+images+`/other.img count=1 </dev/null >/dev/null 2>&1" /dev/null || :`)
	for _, want := range []string{"imgward: refused: dd", "vdb of running domain rhevm"} {
		if !strings.Contains(screen, want) {
			t.Errorf("the terminal does not say %q:\n%s", want, screen)
		}
	}

	// The journal, by field.
	until(t, "the refusal is in the journal", func() bool {
		out, _ := b.try("journalctl --no-pager -o json IMGWARD_DOMAIN=rhevm IMGWARD_COMM=dd")
		line, _, _ := strings.Cut(out, "\n")
		var e map[string]any
		return json.Unmarshal([]byte(line), &e) == nil && e["IMGWARD_TARGET"] == "vdb" && e["IMGWARD_PATH"] == "other.img" &&
			e["IMGWARD_ERRNO"] == "EBUSY" && e["SYSLOG_IDENTIFIER"] == "imgward" && e["PRIORITY"] == "4" &&
			e["_SYSTEMD_UNIT"] == service && e["IMGWARD_VIEW"] == images && e["MESSAGE_ID"] == guard.RefusalMessageID &&
			strings.HasPrefix(e["MESSAGE"].(string), "imgward: refused: dd (pid ") && strings.Contains(screen, strings.TrimSpace(e["MESSAGE"].(string)))
	}, b.journal)
	b.run(t, "journalctl --no-pager IMGWARD_DOMAIN=rhevm | grep 'domain started'")
	if events := b.run(t, "imgward events "+images); !strings.Contains(events, "domain rhevm started") {
		t.Errorf("events: %s", events)
	}
	b.run(t, "kill "+vm+"; rm /run/libvirt/qemu/rhevm.xml; while ! imgward umount "+images+"; do sleep 0.05; done")
}

// What cannot be protected is said once, and not tried for ever.
func TestNothingToServe(t *testing.T) {
	b := boot(t)
	b.install(t)
	out, err := b.try("systemctl start imgward@srv-nowhere.service")
	if err == nil {
		t.Errorf("it has started: %s", out)
	}
	until(t, "the unit has failed", func() bool { return b.property(t, "imgward@srv-nowhere.service", "ActiveState") == "failed" }, b.journal)
	if n := b.property(t, "imgward@srv-nowhere.service", "NRestarts"); n != "0" {
		t.Errorf("started again %s times", n)
	}
	if log := b.journal(); !strings.Contains(log, "/srv/nowhere: no such file or directory") {
		t.Errorf("the journal does not say why:\n%s", log)
	}
}

// The sandbox is as tight as docs/systemd.md says.
func TestExposure(t *testing.T) {
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", unitFile).CombinedOutput()
	if err != nil {
		t.Errorf("above 2.5: %v\n%s", err, out)
	}
	b := boot(t)
	b.install(t)
	if out, err := b.try("systemd-analyze --man=no verify imgward@srv-images.service"); err != nil || out != "" {
		t.Errorf("verify: %v %s", err, out)
	}
}

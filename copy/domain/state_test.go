// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"errors"
	"os"
	"testing"

	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
)

const someUUID = "12345678-1234-1234-1234-123456789abc"

// TestIntent: what is to be undone outlives the process, is found by the name of a domain that is gone, and is one process's at
// a time.
func TestIntent(t *testing.T) {
	dir := t.TempDir()
	if i, err := loadIntent(dir, someUUID); i != nil || err != nil {
		t.Fatalf("before there is one: %v, %v", i, err)
	}
	i, err := newIntent(dir, someUUID)
	if err != nil {
		t.Fatal(err)
	}
	i.Domain, i.UUID, i.Method = "vm", someUUID, archive.Freeze
	i.Overlays = []overlay{{Target: "vda", Image: "/i/a.img", Format: "raw", File: "/i/o.qcow2", Phase: inOverlay}}
	if err := i.save(); err != nil {
		t.Fatal(err)
	}
	if _, err := loadIntent(dir, someUUID); !errors.Is(err, ErrRepairing) {
		t.Errorf("while another process has it: %v", err)
	}
	i.release()
	if d, err := gone(dir, "vm"); err != nil || d.UUID != someUUID {
		t.Errorf("by name: %+v, %v", d, err)
	}
	if _, err := gone(dir, "other"); !errors.Is(err, libvirtd.ErrNoDomain) {
		t.Errorf("another name: %v", err)
	}
	again, err := loadIntent(dir, someUUID)
	if err != nil || len(again.Overlays) != 1 || again.Overlays[0] != i.Overlays[0] {
		t.Fatalf("%+v, %v", again, err)
	}
	if err := again.done(); err != nil {
		t.Fatal(err)
	}
	if i, err := loadIntent(dir, someUUID); i != nil || err != nil {
		t.Errorf("afterwards: %v, %v", i, err)
	}
}

// TestIntentOfAnother: what cannot be understood is not taken for nothing.
func TestIntentOfAnother(t *testing.T) {
	for _, text := range []string{"", "{}", `{"type":"imgcp-domain-intent","version":2}`} {
		dir := t.TempDir()
		i, err := newIntent(dir, someUUID)
		if err != nil {
			t.Fatal(err)
		}
		i.release()
		if err := os.WriteFile(i.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadIntent(dir, someUUID); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

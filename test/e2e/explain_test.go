// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgward/test/harness"
)

// TestExplainedOnTerminal is the accident itself: the administrator meant vm-disk3.img.
func TestExplainedOnTerminal(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	disk := h.Raw(t, "vm-disk2.img", 8*MiB)
	d := h.Run(t, harness.Spec{Name: "rhevm", Disks: []harness.Disk{{Target: "vdb", File: disk}}})
	script := `cd "$DIR" && dd if=/dev/zero of=vm-disk2.img bs=1k count=4000; echo "exit $?"`
	screen := harness.OnTerminal(t, script, "DIR="+h.Images)
	if harness.Native() {
		if !strings.Contains(screen, "exit 0") || strings.Contains(screen, "imgward") {
			t.Errorf("natively the accident happens without a word, but:\n%s", screen)
		}
		return
	}
	for _, want := range []string{
		"Device or resource busy", "exit 1", // dd's own
		"imgward: refused: dd (pid ", "vm-disk2.img",
		fmt.Sprintf("vdb of running domain rhevm (pid %d)", d.PID(t)),
		"vm-disk3.img", // the next free name
		"imgward allow",
	} {
		if !strings.Contains(screen, want) {
			t.Errorf("the terminal does not say %q:\n%s", want, screen)
		}
	}
	if n := strings.Count(screen, "imgward: refused"); n != 1 {
		t.Errorf("explained %d times, want once:\n%s", n, screen)
	}
	if !strings.Contains(v.Logged(t), "rhevm") {
		t.Errorf("the log says nothing of it:\n%s", v.Logged(t))
	}
}

// TestNextFreeName: the suggestion must be a name that is free.
func TestNextFreeName(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	h.Mount(t)
	disk := h.Raw(t, "db09.img", 8*MiB)
	h.Raw(t, "db10.img", 1*MiB)
	h.Run(t, harness.Spec{Name: "db", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	screen := harness.OnTerminal(t, `: >"$IMG"`, "IMG="+disk)
	if !strings.Contains(screen, "db11.img") {
		t.Errorf("want db11.img suggested: db10.img exists\n%s", screen)
	}
}

// TestNoFlood: a program that tries a thousand times is told once, and every refusal is counted.
func TestNoFlood(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	disk := h.Raw(t, "vm.img", 8*MiB)
	h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	before := v.Status(t).Refusals
	screen := harness.OnTerminal(t, `python3 -c '
import os, sys
for i in range(1000):
    try: os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)
    except OSError: continue
    sys.exit("not refused")' "$IMG"`, "IMG="+disk)
	if n := strings.Count(screen, "imgward: refused"); n < 1 || n > 3 {
		t.Errorf("1,000 refusals of one process within seconds: %d lines on its terminal, want one", n)
	}
	if n := v.Status(t).Refusals - before; n != 1000 {
		t.Errorf("counted %d refusals, want 1000", n)
	}
	if n := strings.Count(v.Logged(t), "refused"); n > 10 {
		t.Errorf("%d lines in the log", n)
	}
}

// TestHostileNames: what goes to a terminal and into JSON cannot be steered by a file's name.
func TestHostileNames(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	v := h.Mount(t)
	name := "evil\x1b]0;owned\x07\nimgward: all is well\xff.img"
	disk := h.Raw(t, "vm.img", 8*MiB)
	alias := filepath.Join(h.Images, name)
	if err := os.Link(disk, alias); err != nil {
		t.Fatal(err)
	}
	h.Run(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	began := time.Now()
	screen := harness.OnTerminal(t, `{ : >"$IMG"; } 2>/dev/null`, "IMG="+alias)
	if strings.Contains(screen, "\x1b") || strings.Contains(screen, "\nimgward: all is well") {
		t.Errorf("raw control characters on the terminal: %q", screen)
	}
	if got := v.Refusals(t, began); len(got) == 0 { // each line was valid JSON, or Refusals would have failed
		t.Error("no refusal in the events")
	}
}

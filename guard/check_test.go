// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// contract is DESIGN's table, by the evidence that an image is in use. A word says what a caller gets:
//
//	yes      it goes ahead
//	no       EBUSY, for good
//	wait     EBUSY, unless the handles behind it go within a moment (MayPass)
//	checked  it goes ahead, and each write through the handle is judged
//
// "other" is a VMM that does not use the image. With the evidence "closed" the domain lists the image and has not opened it,
// with "locked" it has taken locks, with "shared" it shares the disk.
const contract = `
idle        holder  other   manager outsider trusted unseen
write       yes     yes     yes     yes      yes     yes
write-data  yes     yes     yes     yes      yes     yes
truncate    yes     yes     yes     yes      yes     yes
fallocate   yes     yes     yes     yes      yes     yes
copy-into   yes     yes     yes     yes      yes     yes
unlink      yes     yes     yes     yes      yes     yes
rename      yes     yes     yes     yes      yes     yes
replace     yes     yes     yes     yes      yes     yes
rename-dir  yes     yes     yes     yes      yes     yes
set-flags   yes     yes     yes     yes      yes     yes

open        holder  other   manager outsider trusted unseen
write       yes     no      checked no       yes     no
write-data  yes     no      no      no       yes     no
truncate    yes     no      no      no       yes     no
fallocate   yes     no      no      no       yes     no
copy-into   yes     no      no      no       yes     no
unlink      no      no      wait    no       yes     no
rename      no      no      wait    no       yes     no
replace     no      no      wait    no       yes     no
rename-dir  no      no      wait    no       yes     no
set-flags   yes     no      no      no       yes     no

locked      holder  other   manager outsider trusted unseen
write       yes     checked checked no       yes     no
write-data  yes     no      no      no       yes     no
truncate    yes     no      no      no       yes     no
fallocate   yes     no      no      no       yes     no
copy-into   yes     no      no      no       yes     no
unlink      no      no      wait    no       yes     no
rename      no      no      wait    no       yes     no
replace     no      no      wait    no       yes     no
rename-dir  no      no      wait    no       yes     no
set-flags   yes     no      no      no       yes     no

shared      holder  other   manager outsider trusted unseen
write       yes     yes     checked no       yes     no
write-data  yes     no      no      no       yes     no
truncate    yes     no      no      no       yes     no
fallocate   yes     no      no      no       yes     no
copy-into   yes     no      no      no       yes     no
unlink      no      no      wait    no       yes     no
rename      no      no      wait    no       yes     no
replace     no      no      wait    no       yes     no
rename-dir  no      no      wait    no       yes     no
set-flags   yes     no      no      no       yes     no

closed      holder  other   manager outsider trusted unseen
write       yes     no      checked no       yes     no
write-data  yes     no      no      no       yes     no
truncate    yes     no      no      no       yes     no
fallocate   yes     no      no      no       yes     no
copy-into   yes     no      no      no       yes     no
unlink      yes     no      yes     no       yes     no
rename      yes     no      yes     no       yes     no
replace     yes     no      yes     no       yes     no
rename-dir  yes     no      yes     no       yes     no
set-flags   yes     no      no      no       yes     no

view        holder  other   manager outsider trusted unseen
write       yes     wait    checked wait     yes     wait
write-data  yes     wait    wait    wait     yes     wait
truncate    yes     wait    wait    wait     yes     wait
fallocate   yes     wait    wait    wait     yes     wait
copy-into   yes     wait    wait    wait     yes     wait
unlink      yes     wait    wait    wait     yes     wait
rename      yes     wait    wait    wait     yes     wait
replace     yes     wait    wait    wait     yes     wait
rename-dir  yes     wait    wait    wait     yes     wait
set-flags   yes     wait    wait    wait     yes     wait

process     holder  other   manager outsider trusted unseen
write       yes     no      checked no       yes     no
write-data  yes     no      no      no       yes     no
truncate    yes     no      no      no       yes     no
fallocate   yes     no      no      no       yes     no
copy-into   yes     no      no      no       yes     no
unlink      yes     no      no      no       yes     no
rename      yes     no      no      no       yes     no
replace     yes     no      no      no       yes     no
rename-dir  yes     no      no      no       yes     no
set-flags   yes     no      no      no       yes     no

lock        holder  other   manager outsider trusted unseen
write       checked checked checked no       yes     no
write-data  no      no      no      no       yes     no
truncate    no      no      no      no       yes     no
fallocate   no      no      no      no       yes     no
copy-into   no      no      no      no       yes     no
unlink      no      no      no      no       yes     no
rename      no      no      no      no       yes     no
replace     no      no      no      no       yes     no
rename-dir  no      no      no      no       yes     no
set-flags   no      no      no      no       yes     no

blind       holder  other   manager outsider trusted unseen
write       yes     yes     checked no       yes     no
write-data  yes     yes     no      no       yes     no
truncate    no      no      no      no       yes     no
fallocate   no      no      no      no       yes     no
copy-into   no      no      no      no       yes     no
unlink      no      no      yes     no       yes     no
rename      no      no      yes     no       yes     no
replace     no      no      yes     no       yes     no
rename-dir  no      no      yes     no       yes     no
set-flags   no      no      no      no       yes     no
`

func TestContract(t *testing.T) {
	for _, table := range strings.Split(strings.TrimSpace(contract), "\n\n") {
		lines := strings.Split(table, "\n")
		head := strings.Fields(lines[0])
		t.Run(head[0], func(t *testing.T) {
			h := newHost(t)
			img := h.image("vm-disk2.img")
			callers, openers := h.cast(head[0], img)
			g := h.guard()
			for _, line := range lines[1:] {
				cells := strings.Fields(line)
				for i, want := range cells[1:] {
					v := g.Check(background, h.request(Op(cells[0]), img, callers[head[i+1]], openers...))
					if got := outcome(&v); got != want {
						t.Errorf("%s by %s: %s, want %s (%s)", cells[0], head[i+1], got, want, v.Reason)
					}
				}
			}
		})
	}
}

// libvirtd removes a backup's scratch file while QEMU still has it open.
func TestScratchFile(t *testing.T) {
	h := newHost(t)
	scratch := h.image("scratch.qcow2")
	vmm := h.run("vmm")
	text := "<domstatus state='running' pid='" + itoa(vmm.PID) + "'><backups><disk name='vda'><scratch file='" + scratch +
		"'/></disk></backups>" + string(definition("vm")) + "</domstatus>"
	h.must(os.MkdirAll(h.status, 0o755))
	h.must(os.WriteFile(filepath.Join(h.status, "vm.xml"), []byte(text), 0o600))
	g := h.guard()
	for caller, want := range map[string]bool{"manager": true, "outsider": false} {
		v := g.Check(background, h.request(OpUnlink, scratch, h.run(caller), vmm.opener(true)))
		if v.Allowed != want {
			t.Errorf("%s: %v, %s", caller, v.Allowed, v.Reason)
		}
	}
	if v := g.Check(background, h.request(OpTruncate, scratch, h.run("manager"), vmm.opener(true))); v.Allowed {
		t.Error("a manager truncates what QEMU writes")
	}
}

// cast sets up the evidence of a table, and the callers of its columns.
func (h *host) cast(evidence, img string) (callers map[string]*process, openers []Opener) {
	var direct []*os.File
	if evidence == "process" {
		direct = append(direct, h.open(img, os.O_RDWR))
	}
	callers = map[string]*process{
		"holder": h.run("vmm", direct...), "other": h.run("other-vmm"), "manager": h.run("manager"),
		"outsider": h.run("outsider"), "trusted": h.run("trusted"), "unseen": nil,
	}
	for _, f := range direct {
		f.Close()
	}
	holder := callers["holder"]
	switch evidence {
	case "open":
		h.domain("rhevm", holder.PID, img)
		openers = append(openers, holder.opener(true))
	case "closed":
		h.domain("rhevm", holder.PID, img)
	case "locked":
		h.domain("rhevm", holder.PID, img)
		openers = append(openers, locked(holder.opener(true)))
	case "shared":
		h.domainXML("rhevm", bytes.Replace(statusFile("rhevm", holder.PID, img), []byte("<target"), []byte("<shareable/><target"), 1))
		openers = append(openers, holder.opener(true))
	case "view":
		openers = append(openers, holder.opener(true))
	case "lock":
		h.lock(img)
	case "blind":
		h.domain("rhevm", holder.PID)
		h.must(os.WriteFile(filepath.Join(h.status, "other.xml"), []byte("<domstatus"), 0o600))
	}
	return callers, openers
}

func outcome(v *Verdict) string {
	switch {
	case v.Allowed && v.CheckWrites:
		return "checked"
	case v.Allowed:
		return "yes"
	case v.Errno != syscall.EBUSY || v.Reason == "":
		return fmt.Sprintf("errno %v, reason %q", v.Errno, v.Reason)
	case v.MayPass:
		return "wait"
	}
	return "no"
}

// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"strings"
	"testing"
)

// TestMountBelow: a service's worker sees what becomes of the view's mount in the host's mount table, and a file system
// below the view becomes part of it by a command.
func TestMountBelow(t *testing.T) {
	b := boot(t)
	b.install(t)
	b.run(t, "mkdir -p "+images+"/sub && systemctl start "+service+" && mount -t tmpfs below "+images+"/sub && : >"+images+"/sub/a.img")
	warned := func(text string) func() bool {
		return func() bool { return strings.Contains(strings.Join(b.view(t).Warnings, "\n"), text) }
	}
	until(t, "the file system below is noticed", warned("was mounted on "+images+"/sub"), b.journal)
	b.run(t, "imgward mount "+images+"/sub")
	until(t, "it is part of the view", func() bool { return len(b.view(t).Warnings) == 0 }, b.journal)
	if out := b.run(t, "ls "+images+"/sub; findmnt -no TARGET "+images+"/sub || echo none"); out != "a.img\nnone" {
		t.Errorf("below the view: %q", out)
	}
	b.run(t, "mount -t tmpfs over "+images)
	until(t, "the cover is noticed", warned("covered by tmpfs"), b.journal)
	b.run(t, "umount "+images)
	until(t, "the cover is gone", func() bool { return len(b.view(t).Warnings) == 0 }, b.journal)
	holder := b.run(t, ": >"+images+"/held; exec 9<"+images+"/held; sleep 600 >/dev/null 2>&1 & echo $!; umount -l "+images)
	until(t, "the end is noticed", warned("no longer mounted"), b.journal)
	b.run(t, "imgward mount "+images)
	until(t, "it is there again", func() bool { return len(b.view(t).Warnings) == 0 }, b.journal)
	if out := b.run(t, "stat -fc %T "+images); out != "fuseblk" {
		t.Errorf("on the mountpoint is %s", out)
	}
	b.run(t, "kill "+holder)
	b.run(t, "imgward umount "+images)
	if out := b.run(t, "ls "+images+"/sub"); out != "a.img" {
		t.Errorf("after the end of the view: %q", out)
	}
}

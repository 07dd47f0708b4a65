// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"strings"
	"testing"
)

// TestMountUnitBelow: what a mount unit mounts below a view stays where systemd sees it, for it would end the unit and what
// is bound to it. That it is not protected is said, and it becomes part of the view if somebody wants it to.
func TestMountUnitBelow(t *testing.T) {
	b := boot(t)
	b.install(t)
	b.run(t, `mkdir -p /srv/hand/sub; imgward mount /srv/hand
cat >/run/systemd/system/srv-hand-sub.mount <<EOF
[Mount]
What=tmpfs
Where=/srv/hand/sub
Type=tmpfs
EOF
cat >/run/systemd/system/bound.service <<EOF
[Unit]
BindsTo=srv-hand-sub.mount
After=srv-hand-sub.mount
[Service]
ExecStart=sleep 1000
EOF
systemctl daemon-reload; systemctl start bound`)
	warned := func() bool {
		return strings.Contains(b.run(t, "imgward status /srv/hand"), "srv-hand-sub.mount of systemd's mounts it")
	}
	until(t, "it is said that it is not part of the view", warned, b.journal)
	for _, unit := range []string{"srv-hand-sub.mount", "bound.service"} {
		if state := b.property(t, unit, "ActiveState"); state != "active" {
			t.Errorf("%s is %s", unit, state)
		}
	}
	out := b.run(t, "imgward mount /srv/hand/sub 2>&1; findmnt -no TARGET /srv/hand/sub || echo none")
	if !strings.Contains(out, "systemd takes srv-hand-sub.mount for ended") || !strings.HasSuffix(out, "none") {
		t.Error(out)
	}
	until(t, "it is part of the view", func() bool { return !warned() }, b.journal)
	b.run(t, "imgward umount /srv/hand")
}

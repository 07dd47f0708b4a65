// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"

	"imgward/cmd/imgward/onefs"
	"imgward/fs/mounttable"
)

// backups looks for those that stay on one file system, and so leave a view in place out.
func (h *Host) backups(context.Context) []Finding {
	t, err := mounttable.Now()
	if err != nil {
		return []Finding{problem(err.Error(), "")}
	}
	var list []Finding
	for _, v := range h.Views {
		if v.Backing != v.Mountpoint || onefs.LeftOutBefore(t, v.Mountpoint) {
			continue
		}
		exposed := exposedAt(t, v)
		for _, b := range onefs.Find("/", v.Mountpoint) {
			what := fmt.Sprintf("%s stays on one file system and leaves %s out: %s", b.Where, v.Mountpoint, b.Command)
			switch {
			case exposed != "":
				list = append(list, note(what, "it finds the images at "+exposed+", if that is below where it begins"))
			case b.Sure:
				list = append(list, problem(what, "name "+v.Mountpoint+" as a source of its own, or mount with --expose-backing=DIR"))
			default:
				list = append(list, note(what+" (if it begins above)", "name "+v.Mountpoint+" as a source of its own, or mount with --expose-backing=DIR"))
			}
		}
	}
	if len(list) == 0 && len(h.Views) > 0 {
		list = append(list, ok("no backup was found that stays on one file system above a view (cron, timers, borgmatic, rsnapshot)"))
	}
	return list
}

// exposedAt is a mount that shows the files of a view read-only; empty if there is none.
func exposedAt(t *mounttable.Table, v View) string {
	home := below(t, v.Backing)
	if home == nil {
		return ""
	}
	for _, m := range t.All() {
		if mounttable.Device(m) == mounttable.Device(home) && m.ID != home.ID && m.Root == mounttable.Inside(home, v.Backing) && mounttable.ReadOnly(m) {
			return m.Mountpoint
		}
	}
	return ""
}

// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
)

// Where it is written down what a host mounts and starts.
const (
	fstab       = "/etc/fstab"
	unitsToLoad = "/etc/systemd/system/*.wants/"
)

// boot asks whether the views will be there again after a reboot.
func (h *Host) boot(context.Context) []Finding {
	var list []Finding
	for _, v := range h.Views {
		name := "imgward@" + unit.UnitNamePathEscape(v.Mountpoint) + ".service"
		enabled, _ := filepath.Glob(unitsToLoad + escapeGlob(name))
		switch {
		case len(enabled) > 0:
			list = append(list, ok(v.Mountpoint+" is mounted at boot by "+name))
		case inFstab(fstab, v.Mountpoint):
			list = append(list, ok(v.Mountpoint+" is mounted at boot by "+fstab))
		default:
			list = append(list, note(v.Mountpoint+" will not be protected after a reboot: neither a unit nor "+fstab+" mounts it",
				"systemctl enable '"+name+"'"))
		}
	}
	return list
}

func escapeGlob(name string) string { return strings.ReplaceAll(name, `\`, `\\`) }

// AtBoot lists the directories that a boot protects: those of enabled units, and those in fstab.
func AtBoot() []string {
	list := viewsIn(fstab)
	units, _ := filepath.Glob(unitsToLoad + "imgward@?*.service")
	for _, u := range units {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(u), "imgward@"), ".service")
		list = append(list, unit.UnitNamePathUnescape(name))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// inFstab says whether a table mounts a view on a directory.
func inFstab(table, dir string) bool { return slices.Contains(viewsIn(table), dir) }

// viewsIn lists the directories on which a table mounts views at boot.
func viewsIn(table string) (list []string) {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || strings.HasPrefix(fields[0], "#") || strings.TrimPrefix(fields[2], "fuse.") != "imgward" {
			continue
		}
		if len(fields) > 3 && slices.Contains(strings.Split(fields[3], ","), "noauto") {
			continue
		}
		list = append(list, unescapeOctal(fields[1]))
	}
	return list
}

// unescapeOctal undoes what fstab(5) asks for in names.
func unescapeOctal(name string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(name)
}

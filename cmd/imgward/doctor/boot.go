package doctor

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
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

// inFstab says whether a table mounts a view on a directory.
func inFstab(table, dir string) bool {
	f, err := os.Open(table)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 3 && !strings.HasPrefix(fields[0], "#") && unescapeOctal(fields[1]) == dir &&
			strings.TrimPrefix(fields[2], "fuse.") == "imgward" {
			return true
		}
	}
	return false
}

// unescapeOctal undoes what fstab(5) asks for in names.
func unescapeOctal(name string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(name)
}

package doctor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"

	viewfs "imgward/fs"
)

// bypasses looks for other ways to the files below a view: mounts of the same file system.
func (h *Host) bypasses(context.Context) []Finding {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return []Finding{problem("the mount table cannot be read: "+err.Error(), "")}
	}
	var list []Finding
	for _, v := range h.Views {
		found := otherWays(mounts, v)
		for _, path := range found {
			list = append(list, problem(fmt.Sprintf("the files of %s are also at %s, unprotected", v.Mountpoint, path),
				"umount that, or put a view over it"))
		}
		if v.Backing != v.Mountpoint {
			list = append(list, note(fmt.Sprintf("%s shows %s, which is itself unprotected", v.Mountpoint, v.Backing),
				"let nobody use the directory itself, or mount the view in place"))
		}
	}
	if len(list) == 0 && len(h.Views) > 0 {
		list = append(list, ok("no other mount leads to the files below a view"))
	}
	return list
}

// otherWays lists paths that lead to a view's files without it: where some mount shows the same directory of the same file
// system, or one above or below it.
func otherWays(mounts []*mountinfo.Info, v View) []string {
	home := holding(mounts, v.Backing)
	if home == nil {
		return nil
	}
	rel, err := filepath.Rel(home.Mountpoint, v.Backing)
	if err != nil {
		return nil
	}
	inside := filepath.Join(home.Root, rel) // of the file system
	var list []string
	for _, m := range mounts {
		if m.ID == home.ID || m.Major != home.Major || m.Minor != home.Minor {
			continue
		}
		var path string
		switch {
		case within(inside, m.Root):
			down, _ := filepath.Rel(m.Root, inside)
			path = filepath.Join(m.Mountpoint, down)
		case within(m.Root, inside):
			path = m.Mountpoint
		default:
			continue
		}
		if top := holding(mounts, path); top != nil && top.ID == m.ID { // else something covers it
			list = append(list, path)
		}
	}
	return list
}

// holding is the mount that a path is on, views left out: the deepest mountpoint, and of those the last mounted.
func holding(mounts []*mountinfo.Info, path string) *mountinfo.Info {
	var best *mountinfo.Info
	for _, m := range mounts {
		if m.FSType == viewfs.FSType || !within(path, m.Mountpoint) {
			continue
		}
		if best == nil || len(m.Mountpoint) >= len(best.Mountpoint) {
			best = m
		}
	}
	return best
}

// exportTables say what the NFS server exports: what it does now, and what it is to.
var exportTables = [...]string{"/var/lib/nfs/etab", "/etc/exports"}

func (h *Host) exports(context.Context) []Finding {
	var list []Finding
	seen := map[string]bool{}
	for _, table := range exportTables {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		for _, dir := range exported(f) {
			for _, v := range h.Views {
				if (within(v.Backing, dir) || within(dir, v.Backing)) && !seen[dir] {
					seen[dir] = true
					list = append(list, problem(fmt.Sprintf("%s is exported by NFS (%s): clients of it pass by the view", dir, table),
						"exportfs -u it, or run imgward on the clients that hold images"))
				}
			}
		}
		f.Close()
	}
	return list
}

// exported are the directories in an exports(5) table: the first word of each line, with octal escapes or in quotes.
func exported(f *os.File) []string {
	var dirs []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if quoted, ok := strings.CutPrefix(line, `"`); ok {
			line, _, _ = strings.Cut(quoted, `"`)
		} else {
			line = strings.Fields(line)[0]
		}
		dirs = append(dirs, filepath.Clean(strings.ReplaceAll(line, `\040`, " ")))
	}
	return dirs
}

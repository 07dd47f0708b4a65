// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	viewfs "imgward/fs"
	"imgward/fs/mounttable"
	"imgward/guard"
)

// bypasses looks for other ways to the files below a view: mounts of the same file system.
func (h *Host) bypasses(context.Context) []Finding {
	t, err := mounttable.Now()
	if err != nil {
		return []Finding{problem(err.Error(), "")}
	}
	var list []Finding
	for _, v := range h.Views {
		found := otherWays(t, v)
		for _, path := range found {
			do := "make it read-only: mount --bind -o ro " + path + " " + path
			if m := t.Topmost(path); m != nil {
				do = "umount " + path + ", or make it read-only: mount -o remount,bind,ro " + path
			}
			list = append(list, problem(fmt.Sprintf("the files of %s are also at %s, unprotected", v.Mountpoint, path), do))
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
// system, or one above or below it, and can be written through.
func otherWays(t *mounttable.Table, v View) []string {
	home := below(t, v.Backing)
	if home == nil {
		return nil
	}
	inside := mounttable.Inside(home, v.Backing) // of the file system
	var list []string
	for _, m := range t.All() {
		if m.ID == home.ID || mounttable.Device(m) != mounttable.Device(home) || mounttable.ReadOnly(m) {
			continue
		}
		var path string
		switch {
		case guard.Within(inside, m.Root):
			down, _ := filepath.Rel(m.Root, inside)
			path = filepath.Join(m.Mountpoint, down)
		case guard.Within(m.Root, inside):
			path = m.Mountpoint
		default:
			continue
		}
		if at := t.At(path); at != nil && at.ID == m.ID { // else something covers it: another file system, or the view
			list = append(list, path)
		}
	}
	return list
}

// below is the mount that a path is on, below any view that stands there.
func below(t *mounttable.Table, path string) *mounttable.Mount {
	m := t.At(path)
	for m != nil && m.FSType == viewfs.FSType {
		m = t.Parent(m)
	}
	return m
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
				if (guard.Within(v.Backing, dir) || guard.Within(dir, v.Backing)) && !seen[dir] {
					seen[dir] = true
					list = append(list, problem(fmt.Sprintf("%s is exported by NFS (%s): its clients bypass the view", dir, table),
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
		dirs = append(dirs, filepath.Clean(unescapeOctal(line)))
	}
	return dirs
}

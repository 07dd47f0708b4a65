// SPDX-License-Identifier: Apache-2.0

// Package onefs finds backups that stay on one file system (rsync -x, tar --one-file-system, find -xdev, …). They leave a
// view out, for it is a file system of its own: the directory below which it stands looks empty to them, and they exit
// with 0. It reads what a host runs by cron and timers, and the configuration of tools that are made for backups.
package onefs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	viewfs "imgward/fs"
	"imgward/fs/mounttable"
)

// Backup is one that would leave a directory out.
type Backup struct {
	Where   string // the file that says so, and the line where there are lines
	Command string // as it stands there
	// Sure says that it begins at a directory above. Else that is in a variable.
	Sure bool
}

// crontabs hold a command in each line, after the times (and, but for users' own, a user).
var crontabs = []string{
	"etc/crontab", "etc/anacrontab", "etc/cron.d/*", "var/spool/cron/*", "var/spool/cron/crontabs/*", "var/spool/cron/tabs/*",
}

// scripts are run whole.
var scripts = []string{"etc/cron.hourly/*", "etc/cron.daily/*", "etc/cron.weekly/*", "etc/cron.monthly/*"}

// units are what timers start, among others.
var units = []string{"etc/systemd/system/*.service", "run/systemd/system/*.service", "usr/lib/systemd/system/*.service", "lib/systemd/system/*.service"}

// maxScript is the longest file that is read, in bytes: what is longer was not written by hand.
const maxScript = 256 << 10

// Find looks on the host whose root directory is root for backups that leave dir out. What cannot be read is passed over.
func Find(root, dir string) []Backup {
	f := finder{root: root, dir: filepath.Clean(dir), seen: map[string]bool{}}
	f.each(crontabs, f.shell)
	f.each(scripts, f.shell)
	f.each(units, f.unit)
	for _, c := range configured {
		f.each(c.files, func(name, text string) { f.config(&c, name, text) })
	}
	return f.found
}

// LeftOutBefore says whether such backups leave a directory out without a view on it, too: it is a file system of its own.
func LeftOutBefore(t *mounttable.Table, dir string) bool {
	m := t.Topmost(dir)
	for m != nil && m.FSType == viewfs.FSType {
		m = t.Parent(m)
	}
	return m != nil && m.Mountpoint == dir
}

type finder struct {
	root, dir string
	seen      map[string]bool // files that were read
	found     []Backup
}

// each reads files by globs below the root, each once by whatever name.
func (f *finder) each(globs []string, read func(name, text string)) {
	for _, g := range globs {
		names, _ := filepath.Glob(filepath.Join(f.root, g))
		for _, name := range names {
			f.file(name, read)
		}
	}
}

func (f *finder) file(name string, read func(name, text string)) {
	real, err := filepath.EvalSymlinks(name)
	if err != nil || f.seen[real] {
		return
	}
	f.seen[real] = true
	st, err := os.Stat(real)
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxScript {
		return
	}
	if text, err := os.ReadFile(real); err == nil {
		read(name, string(text))
	}
}

// shell reads a crontab or a script, and the scripts that it names by absolute paths.
func (f *finder) shell(name, text string) {
	for _, line := range logicalLines(text) {
		for _, words := range commands(line.text) {
			f.command(fmt.Sprintf("%s:%d", name, line.number), words)
			f.follow(words)
		}
	}
}

// unit reads the commands of a service.
func (f *finder) unit(name, text string) {
	for _, line := range logicalLines(text) {
		key, value, ok := strings.Cut(line.text, "=")
		if !ok || !strings.HasPrefix(key, "Exec") {
			continue
		}
		for _, words := range commands(strings.TrimLeft(value, "@-:+!")) {
			f.command(fmt.Sprintf("%s:%d", name, line.number), words)
			f.follow(words)
		}
	}
}

// follow reads a script that a command runs, or gives to a shell.
func (f *finder) follow(words []string) {
	for _, w := range words {
		// Nothing is looked at in the directory itself: there may be a view on it that does not answer.
		if filepath.IsAbs(w) && !strings.HasPrefix(w, f.dir) {
			f.file(filepath.Join(f.root, w), func(name, text string) {
				if strings.HasPrefix(text, "#!") {
					f.shell(name, text)
				}
			})
		}
	}
}

// command notes a command that stays on one file system and begins above the directory.
func (f *finder) command(where string, words []string) {
	for i, w := range words {
		if strings.ContainsAny(w, " \t") && i > 0 && strings.HasPrefix(words[i-1], "-") && strings.HasSuffix(words[i-1], "c") {
			for _, inner := range commands(w) { // sh -c '…'
				f.command(where, inner)
			}
			return
		}
		t, ok := tools[filepath.Base(w)]
		if !ok {
			continue
		}
		args := words[i+1:]
		if !t.staysOnOne(args) {
			return
		}
		if sure, left := f.leavesOut(t.sources(args)); left {
			f.found = append(f.found, Backup{Where: where, Command: strings.Join(words[i:], " "), Sure: sure})
		}
		return
	}
}

// leavesOut says whether one of the sources is above the directory, surely or perhaps. One that names it, or excludes
// it, knows of it.
func (f *finder) leavesOut(sources []string) (sure, left bool) {
	for _, s := range sources {
		switch {
		case strings.Contains(s, f.dir):
			return false, false
		case strings.ContainsAny(s, "$`"):
			left = true
		case filepath.IsAbs(s) && f.above(s):
			sure, left = true, true
		}
	}
	return sure, left
}

func (f *finder) above(dir string) bool {
	rel, err := filepath.Rel(filepath.Clean(dir), f.dir)
	return err == nil && filepath.IsLocal(rel) && rel != "."
}

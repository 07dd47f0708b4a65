// SPDX-License-Identifier: Apache-2.0

package onefs

import (
	"slices"
	"strings"
)

// tool is how a program is told to stay on one file system.
type tool struct {
	long  []string // options that say so
	short byte     // a letter that does, in a cluster such as -ax; 0: none
	// withValue are letters whose value may follow in the same word.
	withValue string
	// target says that the last argument is where the copy goes.
	target bool
}

var tools = map[string]*tool{
	"rsync":        {long: []string{"--one-file-system"}, short: 'x', withValue: "efMTB@", target: true},
	"cp":           {long: []string{"--one-file-system"}, short: 'x', withValue: "St", target: true},
	"tar":          {long: []string{"--one-file-system"}},
	"gtar":         {long: []string{"--one-file-system"}},
	"bsdtar":       {long: []string{"--one-file-system"}},
	"borg":         {long: []string{"--one-file-system"}, short: 'x', withValue: "eCcm"},
	"restic":       {long: []string{"--one-file-system"}, short: 'x', withValue: "ropeH"},
	"find":         {long: []string{"-xdev", "-mount"}},
	"dar":          {long: []string{"--no-mount-points"}, short: 'M', withValue: "cRXIPgsSzZ"},
	"mksquashfs":   {long: []string{"-one-file-system"}, target: true},
	"rdiff-backup": {long: []string{"--exclude-other-filesystems"}, target: true},
	"duplicity":    {long: []string{"--exclude-other-filesystems"}},
}

func (t *tool) staysOnOne(args []string) bool {
	for _, a := range args {
		if a == "--" {
			return false
		}
		if slices.Contains(t.long, a) || t.inCluster(a) {
			return true
		}
	}
	return false
}

func (t *tool) inCluster(arg string) bool {
	if t.short == 0 || len(arg) < 2 || arg[0] != '-' || arg[1] == '-' {
		return false
	}
	for _, c := range []byte(arg[1:]) {
		if c == t.short {
			return true
		}
		if strings.IndexByte(t.withValue, c) >= 0 {
			return false
		}
	}
	return false
}

// sources are the arguments that may be what is copied, the values of options among them: an --exclude is of interest.
func (t *tool) sources(args []string) []string {
	last := len(args) - 1
	if t.target && last > 0 && !strings.HasPrefix(args[last], "-") {
		args = args[:last]
	}
	return args
}

// config is how a backup tool is configured to stay on one file system.
type config struct {
	files []string
	is    func(line []string) bool // a line's words say so
}

var configured = []config{
	{[]string{"etc/borgmatic/config.yaml", "etc/borgmatic.d/*.yaml", "etc/borgmatic.d/*.yml"}, func(w []string) bool {
		return len(w) >= 2 && w[0] == "one_file_system:" && w[1] == "true"
	}},
	{[]string{"etc/rsnapshot.conf", "etc/rsnapshot/*.conf"}, func(w []string) bool {
		return len(w) >= 2 && w[0] == "one_fs" && w[1] == "1"
	}},
}

// config notes a configuration that stays on one file system: any word of it may be a source.
func (f *finder) config(c *config, name, text string) {
	var said string
	var words []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		w := strings.Fields(line)
		if c.is(w) {
			said = strings.Join(w, " ")
		}
		words = append(words, w...)
	}
	if said == "" {
		return
	}
	if sure, left := f.leavesOut(words); left {
		f.found = append(f.found, Backup{Where: name, Command: said, Sure: sure})
	}
}

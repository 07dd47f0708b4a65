// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName bounds a name in a message, in bytes. A file name has 255 at most; a path that is longer loses its middle.
const maxName = 512

// printable makes a name that anybody may have chosen (a file's, a process's, a domain's) fit for a terminal and a line
// of a log: control characters, terminal escapes, invisible and bidirectional marks and invalid UTF-8 are written as
// Go's strconv.Quote does, without the quotes around it.
func printable(name string) string {
	if len(name) > maxName {
		name = name[:maxName/2] + "…" + name[len(name)-maxName/2:]
	}
	plain := func(r rune) bool { return r != utf8.RuneError && r != '\\' && unicode.IsPrint(r) }
	if strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) < 0 {
		return name
	}
	quoted := strconv.Quote(name)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// ShellWord is an argument as it is typed in a shell, in a command that a message offers. One that looks like an option has
// the -- before it that makes it none.
func ShellWord(arg string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:,@%", r)
	}
	word := arg
	if shown := printable(arg); shown != arg {
		word = "$'" + strings.ReplaceAll(shown, "'", `\'`) + "'" // bash, zsh
	} else if arg == "" || strings.ContainsFunc(arg, func(r rune) bool { return !plain(r) }) {
		word = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	if strings.HasPrefix(arg, "-") {
		word = "-- " + word
	}
	return word
}

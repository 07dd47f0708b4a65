// SPDX-License-Identifier: Apache-2.0

package kaudit

import (
	"fmt"
	"strings"
)

// Fields builds a record's text: name=value, separated by spaces, as auditd's tools take it apart.
type Fields struct{ b strings.Builder }

// Word adds a value that this program has chosen: a number, a uuid, a word without spaces. An empty one is "?".
func (f *Fields) Word(name string, value any) {
	text := fmt.Sprint(value)
	if text == "" {
		text = "?"
	}
	f.add(name, text)
}

// Name adds a value that others have chosen. It is quoted, or in hexadecimal where it could be taken for something else,
// as the kernel writes names (audit_log_untrustedstring); ausearch -i shows it in clear. An empty one is "?".
func (f *Fields) Name(name, value string) {
	switch {
	case value == "":
		f.add(name, "?")
	case strings.ContainsFunc(value, suspect):
		f.add(name, fmt.Sprintf("%X", value))
	default:
		f.add(name, `"`+value+`"`)
	}
}

// suspect is audit_string_contains_control of the kernel: quotes, spaces, and all that is not printable ASCII.
func suspect(r rune) bool { return r == '"' || r <= ' ' || r > '~' }

func (f *Fields) add(name, text string) {
	if f.b.Len() > 0 {
		f.b.WriteByte(' ')
	}
	f.b.WriteString(name + "=" + text)
}

func (f *Fields) String() string { return f.b.String() }

// SPDX-License-Identifier: Apache-2.0

// Package terminal makes what others chose fit for a terminal.
package terminal

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Safe is a name that somebody may have chosen to mislead: one with newlines, terminal escapes or marks that turn the
// writing direction is quoted as Go does, any other stays as it is.
func Safe(name string) string {
	for _, r := range name {
		if r == utf8.RuneError || r == '\\' || !unicode.IsPrint(r) {
			return strconv.Quote(name)
		}
	}
	return name
}

// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"os/exec"
	"testing"
)

// TestShellWord has a shell read what a message offers: it is the argument again, and nothing else.
func TestShellWord(t *testing.T) {
	for arg, want := range map[string]string{
		"vm1":              "vm1",
		"/v/a b/it's.img":  `'/v/a b/it'\''s.img'`,
		"":                 "''",
		"-x":               "-- -x",
		"- x":              "-- '- x'",
		"$(reboot) `id`;*": "'$(reboot) `id`;*'",
		"a\x1b[31m\n'\\b":  `$'a\x1b[31m\n\'\\b'`,
	} {
		word := ShellWord(arg)
		if word != want {
			t.Errorf("%q: %s, want %s", arg, word, want)
		}
		out, err := exec.Command("bash", "-c", `set -- `+word+`; [ "$1" != -- ] || shift; [ $# = 1 ] && printf %s "$1"`).Output()
		if err != nil || string(out) != arg {
			t.Errorf("%s is read as %q, %v", word, out, err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Help fits on a terminal, and every command stands in a group.
func TestHelp(t *testing.T) {
	root := newRoot()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.GroupID == "" && !c.Hidden {
			t.Errorf("%s stands in no group", c.Name())
		}
	}
	checkHelp(t, root)
}

func checkHelp(t *testing.T, c *cobra.Command) {
	if c.Hidden || c.Name() == "completion" { // whose help is cobra's
		return
	}
	var help bytes.Buffer
	c.SetOut(&help)
	c.InitDefaultHelpFlag()
	if err := c.Help(); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(help.String(), "\n") {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%s --help: %d columns: %s", c.CommandPath(), n, line)
		}
	}
	for _, sub := range c.Commands() {
		checkHelp(t, sub)
	}
}

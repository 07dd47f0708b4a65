// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every command and every option of it is in the manual.
func TestManual(t *testing.T) {
	manual := ""
	for _, page := range []string{"imgward.1", "imgward-mount.8"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "dist", "man", page))
		if err != nil {
			t.Fatal(err)
		}
		manual += strings.NewReplacer(`\-`, "-", `\fB`, "", `\fI`, "", `\fR`, "").Replace(string(b))
	}
	synopsis, _, _ := strings.Cut(manual, ".SH DESCRIPTION")
	root := newRoot()
	root.InitDefaultCompletionCmd()
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" {
			return
		}
		if !strings.Contains(synopsis, c.CommandPath()+" ") && !strings.Contains(synopsis, c.CommandPath()+"\n") {
			t.Errorf("%s is not in the manual's synopsis", c.CommandPath())
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			short := f.Shorthand != "" && strings.Contains(manual, "-"+f.Shorthand+" ")
			if !f.Hidden && !short && !strings.Contains(manual, "--"+f.Name) {
				t.Errorf("%s --%s is not in the manual", c.CommandPath(), f.Name)
			}
		})
		if c.Name() == "completion" { // cobra's own
			return
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	for _, c := range root.Commands() {
		check(c)
	}
}

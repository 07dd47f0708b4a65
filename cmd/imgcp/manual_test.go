// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"imgward/copy/dd"
)

func checkManual(t *testing.T, text string) {
	t.Helper()
	plain := strings.NewReplacer(`\-`, "-", `\fB`, "", `\fI`, "", `\fR`, "", `\(aq`, "'").Replace(text)
	newRoot().Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(plain, "--"+f.Name) {
			t.Errorf("--%s is not in the manual", f.Name)
		}
	})
	newDomainCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(plain, "--"+f.Name) {
			t.Errorf("imgcp domain's --%s is not in the manual", f.Name)
		}
	})
	newRestoreCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(plain, "--"+f.Name) {
			t.Errorf("imgcp restore's --%s is not in the manual", f.Name)
		}
	})
	for _, name := range dd.OperandNames() {
		if !strings.Contains(plain, name) {
			t.Errorf("dd's %s is not in the manual", name)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(exitHelp), "\n")[1:] {
		code := strings.Fields(line)[0]
		if !strings.Contains(plain, "\n.B "+code+"\n") {
			t.Errorf("exit status %s is not in the manual", code)
		}
	}
	if e, o := strings.Index(plain, ".SH EXAMPLES"), strings.Index(plain, ".SH OPTIONS"); e < 0 || o < e {
		t.Error("EXAMPLES come before OPTIONS")
	}
}

// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// What there is to protect, and how. Each rule has an image of its own, in a directory of its own.
const rules = `
trusted = [%q]
[[rule]]
paths = ["always/**"]
protect = "always"
[[rule]]
paths = ["never/**"]
protect = "never"
[[rule]]
paths = ["audit/**"]
protect = "always"
mode = "audit"
[[rule]]
paths = ["keep/**"]
protect = "always"
deny = ["unlink", "rename"]
errno = "EPERM"
`

var matrix = []struct {
	ops  string
	want map[string]string // by rule; "ok" where nothing is said
}{
	{"read chmod link", nil},
	{"write rdwr append proc-fd", map[string]string{"always": "EBUSY"}},
	{"truncate o_trunc o_path", map[string]string{"always": "EBUSY"}},
	{"chattr", map[string]string{"always": "EBUSY"}},
	{"unlink rename replace rename-dir", map[string]string{"always": "EBUSY", "keep": "EPERM"}},
}

func TestMatrix(t *testing.T) {
	bin := t.TempDir()
	agent, outsider := program(t, filepath.Join(bin, "agent")), program(t, filepath.Join(bin, "outsider"))
	callers := []struct {
		name, program string
		trusted       bool
	}{
		{"outsider", outsider, false},
		{"trusted", agent, true},
		// Names that a program can choose for itself make nobody of it.
		{"qemu by name", program(t, filepath.Join(bin, "qemu-system-x86_64")), false},
		{"agent by name", program(t, filepath.Join(bin, "elsewhere/agent")), false},
	}
	v := mount(t, fmt.Sprintf(rules, agent))
	for _, rule := range []string{"always", "never", "audit", "keep", "default"} {
		for _, row := range matrix {
			for _, op := range strings.Fields(row.ops) {
				for _, c := range callers {
					image := v.image(t, fmt.Sprintf("%s/%s-%s.img", rule, op, strings.ReplaceAll(c.name, " ", "-")))
					want := row.want[rule]
					if want == "" || c.trusted {
						want = "ok"
					}
					if got := does(t, c.program, 0, op, image); got != want {
						t.Errorf("%s of an image under %q by %s: %s, want %s", op, rule, c.name, got, want)
					}
				}
			}
		}
	}
	events := v.run(t, "events", "--json", v.dir)
	if !strings.Contains(events, `"audit":true`) {
		t.Error("nothing was audited")
	}
}

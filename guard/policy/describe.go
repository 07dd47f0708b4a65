// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Describe writes the policy as a file that Parse would read to the same: what holds, with nothing left to defaults.
func (p *Policy) Describe(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", strings.ReplaceAll(p.Source, "\n", " "))
	p.Default.describe(&b)
	fmt.Fprintf(&b, "second-layer = %s\n", quote(string(p.Second)))
	list(&b, "vmm", append([]string{wordOnly}, p.Processes.VMMs...))
	list(&b, "vmm_cgroup", p.Processes.VMMCgroups)
	list(&b, "manager", append([]string{wordOnly}, p.Processes.Managers...))
	list(&b, "trusted", p.Processes.Trusted)
	list(&b, "trusted_cgroup", p.Processes.TrustedCgroups)
	list(&b, "aligned", append([]string{wordOnly}, p.Processes.Aligned...))
	for i := range p.Rules {
		b.WriteString("\n[[rule]]\n")
		list(&b, "paths", p.Rules[i].Paths)
		p.Rules[i].describe(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Rule) describe(b *strings.Builder) {
	fmt.Fprintf(b, "protect = %s\n", quote(string(r.Protect)))
	list(b, "deny", r.Deny.Names())
	fmt.Fprintf(b, "mode = %s\n", quote(string(r.Mode)))
	fmt.Fprintf(b, "errno = %s\n", quote(errnoName(r.Errno)))
	fmt.Fprintf(b, "foreign_writer = %s\n", quote(string(r.Writer)))
	fmt.Fprintf(b, "message = %s\n", quote(r.Message))
}

func list(b *strings.Builder, key string, values []string) {
	var quoted []string
	for _, v := range values {
		quoted = append(quoted, quote(v))
	}
	fmt.Fprintf(b, "%s = [%s]\n", key, strings.Join(quoted, ", "))
}

// quote writes a basic string of TOML, which knows fewer escapes than Go's: control characters are \u and four digits there.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			b.WriteString(`\u00` + strconv.FormatInt(0x100+int64(r), 16)[1:])
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// Traps says in which ways the policy does not do what its words say, on this host and for the views on these
// mountpoints. Each is a sentence. It looks at files, so it is for the host's own mount namespace.
func (p *Policy) Traps(views []string) []string {
	var traps []string
	for i := range p.Rules {
		for _, pattern := range p.Rules[i].Paths {
			if trap := patternTrap(pattern, views); trap != "" {
				traps = append(traps, fmt.Sprintf("paths %q: %s", pattern, trap))
			}
		}
	}
	if p.Default.Deny == 0 && p.Default.Protect != Never {
		traps = append(traps, `deny = [] refuses nothing, whatever is protected`)
	}
	known := DefaultProcesses()
	for _, l := range []struct {
		key        string
		own, known []string
		nobody     string
	}{
		{"trusted", p.Processes.Trusted, nil, "nobody is trusted by it"},
		{"vmm", p.Processes.VMMs, known.VMMs, "it makes nothing a VMM"},
		{"manager", p.Processes.Managers, known.Managers, "it makes nothing a manager"},
		{"aligned", p.Processes.Aligned, known.Aligned, "its O_DIRECT goes through the daemon as before"},
	} {
		for _, glob := range l.own {
			if slices.Contains(l.known, glob) {
				continue
			}
			if trap := programTrap(glob); trap != "" {
				traps = append(traps, fmt.Sprintf("%s %q %s; %s", l.key, glob, trap, l.nobody))
			}
		}
	}
	for _, group := range p.Processes.TrustedCgroups {
		if trap := cgroupTrap(group); trap != "" {
			traps = append(traps, fmt.Sprintf("trusted_cgroup %q: %s", group, trap))
		}
	}
	if trap := p.Processes.open(); trap != "" {
		traps = append(traps, trap)
	}
	return append(traps, leftOut(known.VMMs, p.Processes.VMMs)...)
}

// patternTrap is why a pattern cannot match what it is written for.
func patternTrap(pattern string, views []string) string {
	if strings.HasSuffix(pattern, "/") {
		return fmt.Sprintf("it matches no file, for it ends in a slash; what is in the directory is %q", strings.TrimSuffix(pattern, "/")+"/**")
	}
	parts := strings.Split(strings.TrimPrefix(pattern, "/"), "/")
	for _, part := range parts {
		if part == "" || part == "." || part == ".." {
			return "it matches no file: no path below a view has a part " + fmt.Sprintf("%q", part)
		}
	}
	if !strings.HasPrefix(pattern, "/") {
		return ""
	}
	const meaning = "a leading slash is the root of the view, not of the host"
	for _, v := range views {
		if rest, ok := strings.CutPrefix(pattern, v+"/"); ok {
			return fmt.Sprintf("%s; for the view on %s write %q", meaning, v, rest)
		}
	}
	// The name of a directory of the host, which no view has.
	if _, err := os.Lstat("/" + parts[0]); err != nil || len(parts) == 1 {
		return ""
	}
	for _, v := range views {
		if _, err := os.Lstat(path.Join(v, parts[0])); err == nil {
			return ""
		}
	}
	return meaning + "; write the path below the view"
}

func cgroupTrap(group string) string {
	if rest, ok := strings.CutPrefix(group, "/sys/fs/cgroup/"); ok {
		return fmt.Sprintf("nobody is trusted by it: write it as /proc/PID/cgroup shows it, %q", "/"+rest)
	}
	if group == "/" {
		return "nobody is trusted by it: everybody is below the root group, so it does not count"
	}
	return ""
}

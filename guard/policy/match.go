// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"path"
	"strings"
)

// Match says whether a pattern names a path below the view, both relative to its root and with "/" between components.
//
//   - Without a slash a pattern matches the last component, at any depth: "*.iso".
//   - With one it matches from the root of the view: "golden/*.qcow2"; a leading slash is the root: "/vm.img".
//   - "**" stands for any number of directories, also none: "vms/**/boot.img", "golden/**".
//   - Within a component it is as for path.Match: *, ?, [a-z], \.
func Match(pattern, name string) bool {
	if !strings.Contains(pattern, "/") {
		ok, err := path.Match(pattern, path.Base(name))
		return ok && err == nil
	}
	return matchParts(strings.Split(strings.TrimPrefix(pattern, "/"), "/"), strings.Split(name, "/"))
}

// matchParts goes back only to the last "**", as one goes back to the last "*" within a name: that is enough, and takes
// no more than len(pattern)·len(name) steps on any input.
func matchParts(pattern, name []string) bool {
	star, resume := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			star, resume = p, n
			p++
		case p < len(pattern) && matchPart(pattern[p], name[n]):
			p, n = p+1, n+1
		case star >= 0:
			resume++
			p, n = star+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

func matchPart(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// checkPattern finds fault with a pattern that could never match as it is meant.
func checkPattern(pattern string) error {
	for _, part := range strings.Split(pattern, "/") {
		if _, err := path.Match(part, "x"); err != nil {
			return err
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"path"
)

// everyday are the programs with which accidents happen, and the interpreters that run everybody's scripts. A policy that
// makes one of them more than an outsider protects against nobody.
var everyday = [...]string{"dd", "truncate", "rm", "mv", "cp", "tee", "shred", "fallocate", "rsync", "qemu-img", "bash", "dash", "sh",
	"zsh", "busybox", "python3", "python3.11", "python3.12", "python3.13", "perl", "sudo", "mkfs.ext4", "mke2fs", "losetup"}

// sessions are control groups of people's logins.
var sessions = [...]string{"/user.slice", "/user.slice/user-0.slice", "/user.slice/user-0.slice/session-1.scope",
	"/user.slice/user-1000.slice", "/user.slice/user-1000.slice/session-1.scope"}

// coversEveryday finds a program of every day that globs name.
func coversEveryday(globs []string) (glob, program string, ok bool) {
	for _, g := range globs {
		for _, dir := range binDirs {
			for _, name := range everyday {
				if matchPart(g, dir+"/"+name) {
					return g, dir + "/" + name, true
				}
			}
		}
	}
	return "", "", false
}

// open says why the lists of programs protect against nobody; empty: they do not.
func (p *Processes) open() string {
	for _, l := range []struct {
		key   string
		globs []string
	}{{"trusted", p.Trusted}, {"vmm", p.VMMs}, {"manager", p.Managers}} {
		if glob, program, ok := coversEveryday(l.globs); ok {
			return fmt.Sprintf("%s %q covers %s: it protects against nobody who uses that", l.key, glob, program)
		}
	}
	for _, g := range p.TrustedCgroups {
		for _, group := range sessions {
			if ok, err := path.Match(g, group); ok && err == nil {
				return fmt.Sprintf("trusted_cgroup %q covers the sessions of administrators (%s): it protects against nobody", g, group)
			}
		}
	}
	return ""
}

// Unprotected says why an outsider's truncation of an image in use would not be refused under a rule of this policy; empty:
// it would be.
func (p *Policy) Unprotected(r *Rule) string {
	switch {
	case r.Protect == Never:
		return `protect = "never"`
	case r.Mode == Audit:
		return `mode = "audit" only watches`
	case r.Deny&Truncate == 0:
		return `deny leaves out "truncate"`
	}
	return p.Processes.open()
}

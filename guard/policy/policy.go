// SPDX-License-Identifier: Apache-2.0

// Package policy is what the administrator decided about images: which are protected, when, from what, and who counts
// as what. It is read from a TOML file (imgward-policy(5)); without one the preset "default" holds.
//
// The policy can widen or narrow protection for outsiders and managers. It never keeps a running VM from its own
// images: the holder's column of the contract is not up for configuration.
package policy

import "syscall"

// Policy is a complete policy. It is never changed once it is in use; another takes its place.
type Policy struct {
	// Source says where it comes from, for messages: a file name, or "preset NAME".
	Source string
	// Default holds for images that no rule names.
	Default Rule
	// Rules are tried in order; the first with a matching pattern holds.
	Rules []Rule
	// Processes says who is who.
	Processes Processes
	// Second says what the second layer is to be.
	Second SecondLayer
}

// Rule is how some images are protected.
type Rule struct {
	Paths   []string // patterns below the view; see Match
	Protect Protect
	Deny    Ops           // what is refused while the image is protected
	Mode    Mode          // whether it is really refused
	Errno   syscall.Errno // what the caller gets
	Writer  ForeignWriter
	Message string // of the operator's own, added to the explanation
}

// Processes are the programs that are more than outsiders: globs (path.Match) of absolute paths of executables. The
// inode must be the one that has that name on this host; a program of the same name elsewhere is nobody.
type Processes struct {
	VMMs     []string
	Managers []string
	// Trusted programs, a backup agent for example, may do anything to any image.
	Trusted []string
	// VMMCgroups are control groups, with those below them, whose processes count as VMMs, whatever they execute.
	VMMCgroups []string
	// TrustedCgroups are control groups, with those below them, whose processes are trusted.
	TrustedCgroups []string
	// Aligned programs, beside VMMs, read and write with O_DIRECT in whole blocks to the end. It is no right: their O_DIRECT
	// goes by kernel passthrough, that of others through the daemon, which takes any alignment.
	Aligned []string
}

// Protect says when an image is protected.
type Protect string

// The degrees of protection.
const (
	Running Protect = "running" // while a running VM uses it
	Defined Protect = "defined" // also while a persistent domain that is shut off would use it
	Always  Protect = "always"  // in use or not: golden base images
	Never   Protect = "never"
)

// Mode says what happens to what the rule forbids.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // it is refused
	Audit   Mode = "audit"   // it is let through, logged and counted: "would have refused"
)

// ForeignWriter says what happens when a VM opens an image for writing that an outsider has open for writing.
type ForeignWriter string

// The ways to keep two writers apart.
const (
	Refuse ForeignWriter = "refuse" // the VM's open is refused (EBUSY), naming the writer
	// Revoke lets the VM's open go ahead, and refuses the outsider's next write. A writer that opened the image before
	// this policy was in force, or created it, writes past the daemon and cannot be stopped: then it is as Refuse.
	Revoke ForeignWriter = "revoke"
)

// SecondLayer says which parts of the second layer protect, beside any view.
type SecondLayer string

// What the second layer may be.
const (
	SecondAuto   SecondLayer = "auto"   // whatever the kernel can do
	SecondStrict SecondLayer = "strict" // and each write is judged, also through a descriptor from before the image was in use
	SecondClaims SecondLayer = "claims" // block devices in use are held with O_EXCL, no more
	SecondOff    SecondLayer = "off"
)

// For returns the rule for a path below the view. An empty path (the caller used a descriptor, and no name is known)
// falls under the default.
func (p *Policy) For(path string) *Rule {
	for i := range p.Rules {
		if p.Rules[i].matches(path) {
			return &p.Rules[i]
		}
	}
	return &p.Default
}

// Uses says whether any rule has this degree of protection, so that the evidence for it is worth gathering.
func (p *Policy) Uses(degree Protect) bool {
	for i := range p.Rules {
		if p.Rules[i].Protect == degree {
			return true
		}
	}
	return p.Default.Protect == degree
}

func (r *Rule) matches(path string) bool {
	for _, pattern := range r.Paths {
		if path != "" && Match(pattern, path) {
			return true
		}
	}
	return false
}

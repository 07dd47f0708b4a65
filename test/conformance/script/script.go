// SPDX-License-Identifier: Apache-2.0

// Package script reads the conformance cases: a line-oriented language in which one check is one short line, as in
//
//	== EACCES: no search permission on a directory of the path
//	for type in regular dir fifo symlink
//	mkdir d 0755 65534 65534
//	make $type d/f
//	chmod d 0644
//	@65534 lstat d/f => EACCES
//
// A case starts with "== name". Its "for" lines give variables, and the case runs once for each combination of their
// values; "for a,b in 1,x 2,y" binds several at once, and "~" stands for a space in a value. "needs WORD..." names
// what the case cannot run without. Every other line is a step:
//
//	[type=dir] @65534:65534,100/b a = open d/f O_RDWR => EACCES|EPERM
//
// From left to right: a condition on a variable; who acts (user, group, supplementary groups, and a letter that tells
// two processes of one user apart; root when absent); a name for what the operation returns; the operation; its
// arguments (Go's quotes where they hold spaces or odd bytes); and what must come of it. Without "=>" the operation
// must succeed. "&" before the operation starts it without waiting for its end.
package script

import (
	"fmt"
	"regexp"
)

// Case is one "==" section of a file, before its variables are bound.
type Case struct {
	File  string
	Line  int
	Name  string
	Needs []string
	loops []loop
	body  []source
}

// Step is one line of a case, with all variables replaced.
type Step struct {
	File string
	Line int
	Who  string // "65534:65534,100/b"; empty: root
	Bind string // the name for the result, or empty
	Op   string
	Args []string
	Want string // what stands after "=>"; "ok" when there is nothing
	// Background is set for "&": the operation may block, a later "wait" step gets its result.
	Background bool
	text       string
}

// Variant is one binding of a case's variables.
type Variant struct {
	Bindings string // "type=fifo user=0", for messages
	Steps    []Step
}

// String gives the step as it was written, with its place.
func (s Step) String() string { return fmt.Sprintf("%s:%d: %s", s.File, s.Line, shorten(s.text)) }

// shorten cuts the long names that tests of NAME_MAX and PATH_MAX use down to "nnn<255>".
func shorten(text string) string {
	return long.ReplaceAllStringFunc(text, func(run string) string {
		return fmt.Sprintf("%s<%d>", run[:3], len(run))
	})
}

var long = regexp.MustCompile(`[np/e]{100,}`)

type source struct {
	line int
	text string
}

// loop is one "for" line: rows of values, one value for each name.
type loop struct {
	names []string
	rows  [][]string
}

// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"regexp"
	"strconv"
	"strings"
)

// command is one command line of a page, and what the comment behind it promises.
type command struct {
	line   string // as printed, without prompt and comment
	exit   int    // "exit 3" in the comment; else 0
	endure bool   // "until ^C" in the comment: it goes on until it is interrupted
	output []string
}

var exitPromised = regexp.MustCompile(`\bexit (\d+)\b`)

// runs says whether the block's commands are to be run.
func (b block) runs() bool { return b.notRun == "" && (b.lang == "sh" || b.lang == "console") }

// commands reads a block: a script, one command a line, or ("console") what a terminal shows, where commands follow the prompt
// "# " and what they print stands below.
func (b block) commands() []command {
	var found []command
	var before string // the beginning of a command that goes on
	for _, line := range b.lines {
		if b.lang == "console" {
			shown, typed := strings.CutPrefix(line, "# ")
			if !typed {
				if n := len(found); n > 0 && line != "" {
					found[n-1].output = append(found[n-1].output, line)
				}
				continue
			}
			line = shown
		}
		if begin, goesOn := strings.CutSuffix(line, `\`); goesOn {
			before += begin
			continue
		}
		line, before = before+line, ""
		line, comment := cutComment(line)
		if line == "" {
			continue
		}
		c := command{line: line, endure: strings.Contains(comment, "until ^C")}
		if m := exitPromised.FindStringSubmatch(comment); m != nil {
			c.exit, _ = strconv.Atoi(m[1])
		}
		found = append(found, c)
	}
	return found
}

// cutComment takes a comment off a command line. (A # in quotes is not met in the pages.)
func cutComment(line string) (command, comment string) {
	if strings.HasPrefix(line, "#") {
		return "", line
	}
	command, comment, _ = strings.Cut(line, " #")
	return strings.TrimSpace(command), comment
}

var pidPrinted = regexp.MustCompile(`\bpid \d+`)

// printed matches what a command prints with how a page shows it: pids are others each time, and … stands for what was
// left out.
func printed(line string) *regexp.Regexp {
	pattern := regexp.QuoteMeta(line)
	pattern = pidPrinted.ReplaceAllString(pattern, `pid \d+`)
	return regexp.MustCompile(strings.ReplaceAll(pattern, "…", ".*"))
}

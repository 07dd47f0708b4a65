// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imgward/test/harness"
)

// A command in the prose names a subcommand and options that there are.
func TestInline(t *testing.T) {
	code := regexp.MustCompile("`((?:imgward|imgcp) [^`]+)`")
	for _, page := range pages(t) {
		_, prose := split(t, page)
		// One text, for a command may go over the end of a line.
		for _, m := range code.FindAllStringSubmatch(strings.Join(prose, "\n"), -1) {
			checkNames(t, page, strings.Fields(m[1]))
		}
	}
}

func checkNames(t *testing.T, page string, words []string) {
	t.Helper()
	program, subcommand := filepath.Join(filepath.Dir(harness.Imgward()), words[0]), []string{}
	var options []string
	for i, word := range words[1:] {
		if strings.HasPrefix(word, "-") && word != "-" {
			name, _, _ := strings.Cut(word, "=")
			options = append(options, strings.Trim(name, ".,;:"))
		} else if i == 0 && words[0] == "imgward" || i == 0 && slices.Contains([]string{"dd", "verify", "domain", "restore", "report"}, word) {
			subcommand = append(subcommand, strings.Trim(word, ".,;:"))
		}
	}
	if words[0] == "imgward" && len(words) > 2 && words[1] == "policy" {
		subcommand = words[1:3]
	}
	help := harness.Run(t, append(append([]string{program}, subcommand...), "--help")...)
	usage := strings.Join(append([]string{words[0]}, subcommand...), " ")
	if help.Exit != 0 || !strings.Contains(help.Stdout, usage) {
		t.Errorf("%s: `%s`: there is no %s", page, strings.Join(words, " "), usage)
		return
	}
	for _, option := range options {
		if !regexp.MustCompile(`(^|[\s\[])` + regexp.QuoteMeta(option) + `([\s=,\[\]]|$)`).MatchString(help.Stdout) {
			t.Errorf("%s: `%s`: %s has no option %s", page, strings.Join(words, " "), usage, option)
		}
	}
}

// A table has a head and is in one piece: a blank line within turns the rest of it into text.
func TestTables(t *testing.T) {
	rule := regexp.MustCompile(`^\|( *:?-+:? *\|)+$`)
	for _, page := range pages(t) {
		_, prose := split(t, page)
		for i, line := range prose {
			if !strings.HasPrefix(line, "|") || i > 0 && strings.HasPrefix(prose[i-1], "|") {
				continue
			}
			if i+1 >= len(prose) || !rule.MatchString(prose[i+1]) {
				t.Errorf("%s:%d: a table without a head: %.60s", page, i+1, line)
				continue
			}
			for j := i; j < len(prose) && strings.HasPrefix(prose[j], "|"); j++ {
				if cells(prose[j]) != cells(line) {
					t.Errorf("%s:%d: %d cells, where the head has %d", page, j+1, cells(prose[j]), cells(line))
				}
			}
		}
	}
}

// cells counts the cells of a table's row.
func cells(row string) int { return strings.Count(strings.ReplaceAll(row, `\|`, ""), "|") - 1 }

// A link within the repository leads somewhere, an anchor to a heading.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"`)
	for _, page := range pages(t) {
		_, prose := split(t, page)
		for i, line := range prose {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				to := m[1] + m[2]
				if strings.Contains(to, "://") {
					continue
				}
				file, anchor, _ := strings.Cut(to, "#")
				target := page
				if file != "" {
					target = filepath.Join(filepath.Dir(page), file)
				}
				if _, err := os.Stat(filepath.Join(top, target)); err != nil {
					t.Errorf("%s:%d: %s: %v", page, i+1, to, err)
				} else if anchor != "" && !hasHeading(t, target, anchor) {
					t.Errorf("%s:%d: %s: no such heading", page, i+1, to)
				}
			}
		}
	}
}

var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// hasHeading says whether a page has a heading with that anchor, as GitHub makes them.
func hasHeading(t *testing.T, page, anchor string) bool {
	t.Helper()
	for _, line := range lines(t, page) {
		heading := strings.TrimLeft(line, "#")
		if heading == line || !strings.HasPrefix(heading, " ") {
			continue
		}
		name := notInAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
		if strings.ReplaceAll(name, " ", "-") == anchor {
			return true
		}
	}
	return false
}

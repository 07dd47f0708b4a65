// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// block is one fenced block of a page.
type block struct {
	page   string // relative to the top of the repository
	line   int    // of its first line
	lang   string // "sh", "console", "json", …
	notRun string // the reason, if its commands cannot be run here
	lines  []string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// top is the top of the repository, seen from this package.
const top = "../.."

// pages are those that a newcomer reads.
func pages(t testing.TB) []string {
	t.Helper()
	found, err := filepath.Glob(top + "/docs/*.md")
	if err != nil || len(found) == 0 {
		t.Fatalf("no pages in docs: %v", err)
	}
	pages := []string{"README.md"}
	for _, page := range found {
		pages = append(pages, "docs/"+filepath.Base(page))
	}
	return pages
}

func lines(t testing.TB, page string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, page))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(b), "\n")
}

// notRunMark is what follows a block's language, before the reason.
const notRunMark = "not run:"

// split separates a page's fenced blocks from its prose. The prose keeps its line numbers: a block leaves empty lines.
func split(t testing.TB, page string) (blocks []block, prose []string) {
	t.Helper()
	var open *block
	for i, line := range lines(t, page) {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && open == nil:
			lang, info, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "```"), " ")
			open = &block{page: page, line: i + 2, lang: lang}
			if reason, found := strings.CutPrefix(strings.TrimSpace(info), notRunMark); found {
				open.notRun = strings.TrimSpace(reason)
				if open.notRun == "" {
					t.Errorf("%s:%d: %q without a reason", page, i+1, notRunMark)
				}
			} else if info != "" {
				t.Errorf("%s:%d: %q is no %q with a reason", page, i+1, info, notRunMark)
			}
		case fence:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, strings.TrimSpace(line))
		}
		if fence || open != nil {
			line = ""
		}
		prose = append(prose, line)
	}
	if open != nil {
		t.Errorf("%s: block without an end", open)
	}
	return blocks, prose
}

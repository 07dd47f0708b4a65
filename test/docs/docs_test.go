// SPDX-License-Identifier: Apache-2.0

// Package docs runs the commands of README.md and docs/ as they are printed, on a real domain and a real view, and checks
// what else a page must not get wrong: names of commands and options, links, tables, examples of JSON and TOML.
package docs

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgward/test/harness"
)

// Every command of a page does what the page says: it is run in the directory of images, and exits as the comment behind it
// promises ("exit 3", "until ^C"; else 0). A block that cannot be run says why: ```sh not run: REASON.
func TestCommands(t *testing.T) {
	s := newScene(t)
	for _, page := range pages(t) {
		blocks, _ := split(t, page)
		blocks = slices.DeleteFunc(blocks, func(b block) bool { return !b.runs() })
		if len(blocks) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			s.begin(t)
			for _, b := range blocks {
				s.prepare(t, b)
				s.run(t, b)
			}
		})
	}
}

// shell runs its arguments one after the other in one shell, and says how each ended.
const shell = `set -a; cd "$IMAGES"; for line; do eval "$line"; printf '\001%d\n' $?; done`

func (s *scene) run(t *testing.T, b block) {
	t.Helper()
	commands := b.commands()
	script := []string{"bash", "-c", shell, "bash"}
	for _, c := range commands {
		script = append(script, c.toRun(t))
	}
	// On a terminal of its own, for that is where refusals are explained.
	said := strings.Split(onTerminal(t, script), "\x01")
	for i, c := range commands {
		if i+1 >= len(said) {
			t.Fatalf("%s: %s: the shell ended:\n%s", b, c.line, said[i])
		}
		output := said[i]
		if i > 0 {
			_, output, _ = strings.Cut(output, "\n")
		}
		var exit int
		fmt.Sscan(said[i+1], &exit)
		if exit != c.exit {
			t.Errorf("%s: %s: exit %d, not %d:\n%s", b, c.line, exit, c.exit, output)
		}
		for _, want := range c.output {
			if !printed(want).MatchString(output) {
				t.Errorf("%s: %s: does not say %q, but:\n%s", b, c.line, want, output)
			}
		}
	}
}

// toRun is the command, but for what goes on for ever, which is interrupted, and for make, which only tells what it would do:
// its targets are suites of tests themselves.
func (c command) toRun(t *testing.T) string {
	if rest, found := strings.CutPrefix(c.line, "make "); found {
		dir, err := filepath.Abs(top)
		if err != nil {
			t.Fatal(err)
		}
		return "make -C " + dir + " -n " + rest + " >/dev/null"
	}
	if c.endure {
		return "timeout -k 10 -s INT 2 bash -c " + quote(c.line) + `; [ $? = 124 ]`
	}
	return c.line
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func onTerminal(t *testing.T, args []string) string {
	t.Helper()
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = quote(a)
	}
	screen := harness.OnTerminal(t, strings.Join(quoted, " "), path(), "IMAGES="+images)
	return strings.ReplaceAll(strings.ReplaceAll(screen, "\r\n", "\n"), "\r", "\n")
}

// Every block says what it is: what has no language is not looked at by anybody.
func TestBlocks(t *testing.T) {
	for _, page := range pages(t) {
		blocks, prose := split(t, page)
		for _, b := range blocks {
			switch b.lang {
			case "":
				t.Errorf("%s: a block without a language: sh is run, console is run and compared, text is neither", b)
			case "json":
				for i, line := range b.lines {
					if !json.Valid([]byte(line)) {
						t.Errorf("%s:%d: no JSON: %s", page, b.line+i, line)
					}
				}
			}
		}
		for i, line := range prose {
			if strings.HasPrefix(line, "    ") && (i == 0 || prose[i-1] == "") {
				t.Errorf("%s:%d: an indented block, which has no language: %s", page, i+1, strings.TrimSpace(line))
			}
		}
	}
}

// A policy in a page is one that `imgward policy check` takes.
func TestPolicies(t *testing.T) {
	for _, page := range pages(t) {
		blocks, _ := split(t, page)
		for _, b := range blocks {
			if b.lang != "toml" || b.notRun != "" {
				continue
			}
			file := filepath.Join(t.TempDir(), "policy.toml")
			// A program that is nowhere would be a trap.
			text := strings.NewReplacer("/usr/bin/backup-agent", harness.Imgcp(), "/opt/vendor/bin/copy-disk", harness.Imgcp()).
				Replace(strings.Join(b.lines, "\n"))
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if r := harness.Run(t, harness.Imgward(), "policy", "check", file); r.Exit != 0 {
				t.Errorf("%s: exit %d\n%s%s", b, r.Exit, r.Stdout, r.Stderr)
			}
		}
	}
}

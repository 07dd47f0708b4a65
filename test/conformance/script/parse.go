// SPDX-License-Identifier: Apache-2.0

package script

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Parse reads all cases of one file. The name is for messages.
func Parse(name string, r io.Reader) ([]*Case, error) {
	var cases []*Case
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		switch {
		case text == "" || strings.HasPrefix(text, "#"):
		case strings.HasPrefix(text, "== "):
			cases = append(cases, &Case{File: name, Line: n, Name: strings.TrimSpace(text[3:])})
		case len(cases) == 0:
			return nil, fmt.Errorf("%s:%d: a line before the first case", name, n)
		default:
			if err := cases[len(cases)-1].add(n, text); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, n, err)
			}
		}
	}
	return cases, lines.Err()
}

func (c *Case) add(line int, text string) error {
	words := strings.Fields(text)
	switch words[0] {
	case "for":
		l, err := parseLoop(words[1:])
		if err != nil {
			return err
		}
		c.loops = append(c.loops, l)
	case "needs":
		c.Needs = append(c.Needs, words[1:]...)
	default:
		c.body = append(c.body, source{line, text})
	}
	return nil
}

// parseLoop reads what follows "for": NAME[,NAME...] in VALUE[,VALUE...] ... A "~" stands for a space in a
// value.
func parseLoop(words []string) (loop, error) {
	if len(words) < 3 || words[1] != "in" {
		return loop{}, errors.New("for: want NAME in VALUE and more values")
	}
	l := loop{names: strings.Split(words[0], ",")}
	for _, w := range words[2:] {
		row := []string{w}
		if len(l.names) > 1 {
			row = strings.Split(w, ",")
		}
		if len(row) != len(l.names) {
			return loop{}, fmt.Errorf("for: %d names but %q", len(l.names), w)
		}
		for i := range row {
			row[i] = strings.ReplaceAll(row[i], "~", " ")
		}
		l.rows = append(l.rows, row)
	}
	return l, nil
}

// parseStep reads one step whose variables are replaced already.
func parseStep(file string, line int, text string) (Step, error) {
	s := Step{File: file, Line: line, Want: "ok", text: text}
	words, err := split(text)
	if err != nil {
		return s, err
	}
	for i, w := range words {
		if w == "=>" {
			s.Want = strings.Join(words[i+1:], " ")
			words = words[:i]
			break
		}
	}
	if len(words) > 0 && strings.HasPrefix(words[0], "@") {
		s.Who, words = words[0][1:], words[1:]
	}
	if len(words) > 2 && words[1] == "=" {
		s.Bind, words = words[0], words[2:]
	}
	if len(words) > 1 && words[0] == "&" {
		s.Background, words = true, words[1:]
	}
	if len(words) == 0 {
		return s, fmt.Errorf("no operation")
	}
	s.Op, s.Args = words[0], words[1:]
	return s, nil
}

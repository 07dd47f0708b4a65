// SPDX-License-Identifier: Apache-2.0

package script

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Variants binds the case's variables in all combinations. The given variables (the kind of file system, for one) are
// visible to conditions and steps as well.
func (c *Case) Variants(given map[string]string) ([]Variant, error) {
	all := []map[string]string{given}
	for _, l := range c.loops {
		all = cross(all, l)
	}
	var out []Variant
	for _, vars := range all {
		v := Variant{Bindings: c.describe(vars)}
		for _, src := range c.body {
			step, ok, err := bindStep(c.File, src, vars)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", c.File, src.line, err)
			}
			if ok {
				v.Steps = append(v.Steps, step)
			}
		}
		out = append(out, v)
	}
	return out, nil
}

// cross gives every binding so far every row of one more loop.
func cross(all []map[string]string, l loop) []map[string]string {
	var out []map[string]string
	for _, vars := range all {
		for _, row := range l.rows {
			next := make(map[string]string, len(vars)+len(row))
			for k, v := range vars {
				next[k] = v
			}
			for i, name := range l.names {
				next[name] = row[i]
			}
			out = append(out, next)
		}
	}
	return out
}

func (c *Case) describe(vars map[string]string) string {
	var parts []string
	for _, l := range c.loops {
		for _, name := range l.names {
			parts = append(parts, name+"="+vars[name])
		}
	}
	return strings.Join(parts, " ")
}

var condition = regexp.MustCompile(`^\[(\w+)(!?=)([^\]]*)\]\s*`)

// bindStep replaces the variables of one line; ok is false when its conditions do not hold.
func bindStep(file string, src source, vars map[string]string) (s Step, ok bool, err error) {
	text := src.text
	for {
		m := condition.FindStringSubmatch(text)
		if m == nil {
			break
		}
		value, known := vars[m[1]]
		if !known {
			return s, false, fmt.Errorf("condition on the unknown variable %q", m[1])
		}
		if slices.Contains(strings.Split(m[3], "|"), value) == (m[2] == "!=") {
			return s, false, nil
		}
		text = text[len(m[0]):]
	}
	text, err = substitute(text, vars)
	if err != nil {
		return s, false, err
	}
	s, err = parseStep(file, src.line, text)
	return s, err == nil, err
}

var variable = regexp.MustCompile(`\$(\w+|\{\w+\})`)

func substitute(text string, vars map[string]string) (string, error) {
	var err error
	out := variable.ReplaceAllStringFunc(text, func(ref string) string {
		name := strings.Trim(ref, "${}")
		if value, ok := vars[name]; ok && strings.Contains(value, "$") {
			// A value may name another variable, or $name256.
			value, err = substitute(value, vars)
			return value
		} else if ok {
			return value
		}
		if value, ok := generated(name); ok {
			return value
		}
		err = fmt.Errorf("unknown variable %s", ref)
		return ref
	})
	return out, err
}

var sized = regexp.MustCompile(`^(name|path)(\d+)$`)

// generated makes nameN, a name of N bytes, and pathN, a relative path of N bytes whose directories have names of 200.
func generated(name string) (string, bool) {
	m := sized.FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	n, err := strconv.Atoi(m[2])
	if err != nil {
		return "", false
	}
	if m[1] == "name" {
		return strings.Repeat("n", n), true
	}
	path := strings.Repeat(strings.Repeat("p", 200)+"/", n/201+1)[:n]
	// A path must not end in a slash: that would make a different request of it.
	return strings.TrimSuffix(path, "/") + strings.Repeat("e", n-len(strings.TrimSuffix(path, "/"))), true
}

// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// atLine is an error with the line in which it stands.
func atLine(line int, err toml.ParseError) error {
	message := err.Message
	if message == "" { // the error of a value that checks itself is wrapped
		message = err.Error()
		if cause := errors.Unwrap(err); cause != nil {
			message = cause.Error()
		}
	}
	return fmt.Errorf("line %d: %s", line, message)
}

var (
	settingKeys = []string{"protect", "deny", "mode", "errno", "foreign_writer", "message"}
	topKeys     = append([]string{"vmm", "vmm_cgroup", "manager", "trusted", "trusted_cgroup", "aligned", "second-layer", "rule"}, settingKeys...)
	ruleKeys    = append([]string{"paths"}, settingKeys...)
)

// unknownKeys is the error for keys that mean nothing: a misspelt key would silently not protect.
func unknownKeys(text []byte, keys []toml.Key) error {
	var all []error
	for _, k := range keys {
		name, known, where := k[len(k)-1], topKeys, ""
		if len(k) > 1 && k[0] == "rule" {
			known, where = ruleKeys, " in [[rule]]"
		}
		all = append(all, fmt.Errorf("line %d: unknown key %q%s%s", lineOf(text, k), name, where, didYouMean(name, known)))
	}
	return errors.Join(all...)
}

// lineOf finds the line of a key, which the decoder does not tell; 0 if it is written in a way not looked for here.
func lineOf(text []byte, key toml.Key) int {
	last := key[len(key)-1]
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxFile+1)
	table := ""
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[] \t")
			if table == key.String() {
				return n
			}
			continue
		}
		name, _, ok := strings.Cut(line, "=")
		name = strings.Trim(strings.TrimSpace(name), `"'`)
		if ok && (name == last && table == key[:len(key)-1].String() || table == "" && name == key.String()) {
			return n
		}
	}
	return 0
}

// didYouMean offers the nearest of the words, if one is near.
func didYouMean(got string, words []string) string {
	const near = 3 // letters of difference: enough for "protekt" and "foriegn_writer", too little for guessing
	best, least := "", near+1
	for _, w := range words {
		if d := distance(got, w); d < least && d < len(w) {
			best, least = w, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance is Levenshtein's: how many letters must be changed, added or dropped.
func distance(a, b string) int {
	if len(a) > 64 { // no key is; a hostile file may have a megabyte of one
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

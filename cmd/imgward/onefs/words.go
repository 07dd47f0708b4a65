// SPDX-License-Identifier: Apache-2.0

package onefs

import "strings"

// numbered is a line as it is meant, and the number of its first one in the file.
type numbered struct {
	number int
	text   string
}

// logicalLines joins lines that end with a backslash, and leaves comments out.
func logicalLines(text string) []numbered {
	var list []numbered
	var open *numbered
	for i, line := range strings.Split(text, "\n") {
		line, more := strings.CutSuffix(line, `\`)
		switch {
		case open != nil:
			open.text += " " + line
		case strings.HasPrefix(strings.TrimSpace(line), "#"):
			continue
		default:
			list = append(list, numbered{i + 1, line})
			open = &list[len(list)-1]
		}
		if !more {
			open = nil
		}
	}
	return list
}

// commands splits a line of a shell's into its commands and their words, quotes taken away. It knows no more of the
// language than that: an expansion stays as it is written.
func commands(line string) [][]string {
	var list [][]string
	var words []string
	var word strings.Builder
	quote, inWord := rune(0), false
	endWord := func() {
		if inWord {
			words = append(words, word.String())
			word.Reset()
			inWord = false
		}
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			list = append(list, words)
			words = nil
		}
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, inWord = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			endWord()
		case quote == 0 && strings.ContainsRune(";|&()", r):
			endCommand()
		case quote == 0 && r == '#' && !inWord:
			endCommand()
			return list
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	endCommand()
	return list
}

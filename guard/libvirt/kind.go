// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"os"
	"sync/atomic"
)

// Kind says what the files of an index are.
type Kind int

// The kinds of file.
const (
	StatusFiles Kind = iota // NAME.xml of running domains
	Definitions             // NAME.xml of persistent domains
	SavedStates             // NAME.save of domains whose state was saved (virsh managedsave)
)

// kind is how files of one kind are read.
type kind struct {
	suffix string
	text   func(most int64, steps *atomic.Int64) func(*os.File) ([]byte, error)
	parse  func(text []byte, path string, volumes Volumes) (*Domain, []string, error)
	// optional: one that cannot be read stands for nothing.
	optional bool
}

var kinds = [...]kind{
	StatusFiles: {suffix: ".xml", text: wholeFile, parse: func(text []byte, _ string, v Volumes) (*Domain, []string, error) {
		return Parse(text, v)
	}},
	Definitions: {suffix: ".xml", text: wholeFile, parse: func(text []byte, _ string, v Volumes) (*Domain, []string, error) {
		return ParseDefinition(text, v)
	}},
	SavedStates: {suffix: ".save", text: savedText, parse: parseSaved, optional: true},
}

func wholeFile(most int64, steps *atomic.Int64) func(*os.File) ([]byte, error) {
	return func(f *os.File) ([]byte, error) { return readBounded(counted{f, steps}, most) }
}

func savedText(_ int64, steps *atomic.Int64) func(*os.File) ([]byte, error) {
	return func(f *os.File) ([]byte, error) {
		defer steps.Add(1)
		return ReadSaveImage(f)
	}
}

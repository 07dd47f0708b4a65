// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

// Ops is a set of the kinds of operation that an administrator tells apart, in the policy's deny and in exceptions.
type Ops uint8

// The kinds of operation.
const (
	Truncate Ops = 1 << iota // O_TRUNC, ftruncate, fallocate
	Write                    // opening for writing, writing, copy_file_range into it
	Unlink
	Rename   // its own name taken away or taken over by another file, or a directory above renamed
	SetFlags // chattr +i, +a

	AllOps = Truncate | Write | Unlink | Rename | SetFlags
)

var opNames = [...]string{"truncate", "write", "unlink", "rename", "set-flags"}

// ParseOp reads one name; "all" is all of them.
func ParseOp(name string) (Ops, error) {
	if name == "all" {
		return AllOps, nil
	}
	for i, n := range opNames {
		if n == name {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("%q is not an operation: use one of %s, all%s", name, strings.Join(opNames[:], ", "),
		didYouMean(name, opNames[:]))
}

// ParseOps reads several.
func ParseOps(names []string) (Ops, error) {
	var all Ops
	for _, name := range names {
		op, err := ParseOp(name)
		if err != nil {
			return 0, err
		}
		all |= op
	}
	return all, nil
}

// Names lists the names of a set.
func (o Ops) Names() []string {
	names := []string{}
	for i, n := range opNames {
		if o&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// String lists the names with commas between them.
func (o Ops) String() string { return strings.Join(o.Names(), ",") }

// MarshalText implements encoding.TextMarshaler.
func (o Ops) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *Ops) UnmarshalText(text []byte) (err error) {
	*o, err = ParseOps(strings.FieldsFunc(string(text), func(r rune) bool { return r == ',' }))
	return err
}

// SPDX-License-Identifier: Apache-2.0

package dest

import (
	"errors"
	"fmt"
	"strings"
)

// ErrExists says that the destination exists and overwriting was not asked for.
var ErrExists = errors.New("destination exists")

// ExistsError says that the destination is there already. It is ErrExists.
type ExistsError struct {
	Path     string
	Next     string // the next free name in the same series, if the name has a number
	Contents string // what the destination holds, for block devices
	Sidecar  bool   // no image: --overwrite does not help
}

// Error names the next free name: the accident behind this tool was a 2 typed for a 3.
func (e *ExistsError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s exists", e.Path)
	if e.Contents != "" {
		fmt.Fprintf(&b, ": %s", e.Contents)
	}
	if e.Next != "" {
		fmt.Fprintf(&b, "; next free name: %s", e.Next)
	}
	if !e.Sidecar {
		b.WriteString("; to overwrite it: --overwrite")
	}
	return b.String()
}

// Conflict is ErrExists in words of its own.
type Conflict string

// Error implements error.
func (c Conflict) Error() string { return string(c) }

// Is makes errors.Is(err, ErrExists) true.
func (Conflict) Is(target error) bool { return target == ErrExists }

// Is makes errors.Is(err, ErrExists) true.
func (e *ExistsError) Is(target error) bool { return target == ErrExists }

// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
)

// NeededHint is for a file that an image needs.
const NeededHint = "the image needs this file unchanged, and something writes to it now (a block job?). Try again when that has ended"

// Hold keeps files that an image needs as they are until release: whatever is not in use is locked against writers. One that
// is written to now is ErrInUse, with a hint if that is not "". changed says whether one has been written to all the same.
func Hold(ctx context.Context, paths []string, hint string, o *Options) (release func(), changed func() string, err error) {
	var held []*Source
	release = func() {
		for _, s := range held {
			s.Close()
		}
	}
	changed = func() string {
		for _, s := range held {
			if s.Changed() {
				return s.Name
			}
		}
		return ""
	}
	quiet := *o
	quiet.Live = nil
	for _, path := range paths {
		s, err := Open(path)
		if err == nil {
			held = append(held, s)
			err = s.Admit(ctx, &quiet, "")
		}
		var used *InUseError
		if errors.As(err, &used) && hint != "" {
			used.Hint = hint
		}
		if err != nil {
			release()
			return nil, nil, err
		}
	}
	return release, changed, nil
}

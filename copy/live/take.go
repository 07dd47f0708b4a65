// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"imgward/copy/internal/sys"
	"imgward/copy/move"
)

// rehearse makes sure that a clone can be had, on the first blocks: one of everything would keep the guest's writes waiting.
// pause is how long a clone takes; where that is not known it is measured by one that will not be used.
func (c *clone) rehearse(ctx context.Context, src *os.File, pause time.Duration, known bool, limit time.Duration) (time.Duration, error) {
	st, err := src.Stat()
	if err != nil {
		return 0, err
	}
	k := move.InKernel{Dst: c.f, Src: src, Size: st.Size()}
	why := k.TryClone(0)
	if why != "" && move.OnFUSE(src) {
		why = k.TryCopyRange(0)
	}
	switch {
	case why != "":
		return 0, fmt.Errorf("%s cannot be cloned (%s): --live=backup works there", src.Name(), why)
	case known:
		return pause, nil
	}
	begun := time.Now()
	short, cancel := context.WithTimeoutCause(ctx, limit, tooLong(src.Name(), "more than "+limit.String(), limit))
	defer cancel()
	if err := c.take(short, src); err != nil {
		return 0, err
	}
	if short.Err() != nil {
		return 0, context.Cause(short)
	}
	return time.Since(begun), nil
}

// take makes c the clone of src as it is now, size and all. A view has no FICLONE: there copy_file_range clones.
func (c *clone) take(ctx context.Context, src *os.File) error {
	err := sys.Clone(c.f, src)
	if err == nil || !sys.Unsupported(err) || !move.OnFUSE(src) {
		return err
	}
	st, statErr := src.Stat()
	if statErr != nil {
		return statErr
	}
	if err := c.f.Truncate(st.Size()); err != nil {
		return err
	}
	for off := int64(0); off < st.Size(); {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		done, copyErr := sys.CopyRange(c.f, src, off, st.Size()-off)
		if copyErr != nil || done == 0 {
			return errors.Join(err, copyErr)
		}
		off += done
	}
	return nil
}

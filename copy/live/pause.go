// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"
	"fmt"
	"time"

	"imgward/copy/internal/sys"
	"imgward/copy/source"
)

// perExtent is what a clone takes for each extent: 26 µs of CPU time on XFS (Linux 6.18), and on a host that has something
// else to do three times that.
const perExtent = 90 * time.Microsecond

var errTooLong = errors.New("the machine would be suspended for too long")

// pause is how long a clone of the image will take, from the number of its extents; known is false where the file system
// does not say it. Dirty pages are written back first: that time is the machine's if it comes while that is suspended.
func (s Suspend) pause(i source.LiveImage) (pause time.Duration, known bool, err error) {
	if err := i.File.Sync(); err != nil {
		return 0, false, err
	}
	n, err := sys.Extents(i.File)
	if err != nil {
		return 0, false, nil
	}
	pause = time.Duration(n) * perExtent
	if pause > s.limit() {
		return 0, true, tooLong(i.Path, fmt.Sprintf("about %v, for it has %d extents", pause.Round(100*time.Millisecond), n), s.limit())
	}
	return pause, true, nil
}

func tooLong(path, pause string, limit time.Duration) error {
	return fmt.Errorf("%w: to clone %s takes %s, and --max-pause is %v; --live=backup stops nothing", errTooLong, path, pause, limit)
}

// SPDX-License-Identifier: Apache-2.0

package move

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"imgward/copy/internal/testimg"
)

// TestCopyRangesLimited: a rate limit holds for copy_file_range, whose server may copy bytes. This one lets 1 MiB pass and
// says at once that more never will.
func TestCopyRangesLimited(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.Open(t, testimg.Dense(t, src+"/image", 4<<20))
	copied, err := os.Create(dst + "/copy")
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	k := InKernel{Dst: copied, Src: image, Size: 4 << 20, Moved: func(Step) {}, Limit: rate.NewLimiter(0, 1<<20)}
	if reached, why, err := k.CopyRanges(ctx, 0); err == nil || reached != 1<<20 {
		t.Errorf("reached byte %d (%s), error %v; 1 MiB is allowed", reached, why, err)
	}
}

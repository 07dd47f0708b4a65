// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"testing"

	"imgward/test/smallfiles"
)

// TestManySmallFiles: what eight workers do to small files at once is what the files then hold.
func TestManySmallFiles(t *testing.T) {
	atPlaces(t, func(t *testing.T, p *place) {
		const workers, operations = 8, 40
		done, err := smallfiles.Run(t.Context(), freshDir(t, p), workers, operations)
		if err != nil || done != workers*operations {
			t.Errorf("%d of %d operations were done: %v", done, workers*operations, err)
		}
	})
}

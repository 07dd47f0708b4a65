// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"imgward/test/harness"
)

// Units of images and of what guests write.
const (
	MiB          = harness.MiB
	blocksPerMiB = harness.BlocksPerMiB
)

// guest adds the steps that several tests of this package share.
type guest struct{ *harness.Guest }

func boot(t *testing.T, h *harness.Host, name string, disks ...harness.Disk) *guest {
	t.Helper()
	return &guest{h.Boot(t, name, disks...)}
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"flag"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"imgward/test/conformance/fsx"
)

var (
	fsxSeed = flag.Uint64("seed", 0, "repeat the fsx run of this `seed`; 0 draws one")
	fsxOps  = flag.Int("fsx-ops", 5000, "operations in each fsx run")
)

// TestFsx works files at random, small ones (every edge is met often) and one of 8 MiB.
func TestFsx(t *testing.T) {
	seed := *fsxSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	atPlaces(t, func(t *testing.T, p *place) {
		twins := t.TempDir()
		for name, size := range map[string]int{"256K": 256 << 10, "8M": 8 << 20} {
			t.Run(name, func(t *testing.T) {
				cfg := fsx.Config{
					Seed: seed, Ops: *fsxOps, MaxSize: size, Shift: p.kind() == "native" && p.fstype != "btrfs",
					Unaligned: p.kind() == "native" && p.fstype == "ext4", // as the twin's is; in the view a disk's EINVAL is mended (TestUnalignedDirect)
					Path:      filepath.Join(freshDir(t, p), "file"), Twin: filepath.Join(twins, name),
				}
				if size > 1<<20 {
					// Its operations are longer too.
					cfg.Ops /= 5
				}
				if err := fsx.Run(t.Context(), cfg, slog.New(slog.NewTextHandler(t.Output(), nil))); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

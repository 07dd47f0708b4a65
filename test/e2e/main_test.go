// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the built imgward binary on real mounts, with real libvirtd and QEMU: what must be refused is, and
// what an administrator or libvirt does every day is not hindered. See package harness for how it runs, and natively.
package e2e

import (
	"os"
	"testing"

	"imgward/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

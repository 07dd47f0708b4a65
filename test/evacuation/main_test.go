// SPDX-License-Identifier: Apache-2.0

// Package evacuation tests imgcp domain with a real libvirtd and QEMU: what a copy of a domain has, and that whatever happens
// to imgcp the domain is on its own images afterwards.
package evacuation

import (
	"os"
	"testing"

	"imgward/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// SPDX-License-Identifier: Apache-2.0

package main

import "imgward/cmd/buildversion"

// linkedVersion is set by the linker: -ldflags "-X main.linkedVersion=…".
var linkedVersion string //nolint:gochecknoglobals // the linker sets it

var version = buildversion.Of(linkedVersion) //nolint:gochecknoglobals // never changes

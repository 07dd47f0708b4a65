// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"crypto/rand"
	"encoding/hex"
	"os"
)

// HiddenName is a name in the same directory that ls does not show and that says whose it is; with no suffix given, one
// that nobody can guess. Long names are cut to fit NAME_MAX.
func HiddenName(name, suffix string) string {
	if suffix == "" {
		var b [6]byte
		rand.Read(b[:]) // never fails since Go 1.24
		suffix = hex.EncodeToString(b[:])
	}
	const room = 255 - len(".") - len(".imgcp-") - 16
	return "." + name[:min(len(name), room)] + ".imgcp-" + suffix
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"os"
)

// HiddenName is a name in the same directory that ls does not show and that says whose it is; with no suffix given, one
// that nobody can guess. A name too long for NAME_MAX is cut, and then has a hash of all of it: another image's may begin alike.
func HiddenName(name, suffix string) string {
	if suffix == "" {
		var b [6]byte
		rand.Read(b[:]) // never fails since Go 1.24
		suffix = hex.EncodeToString(b[:])
	}
	const room, hash = 255 - len(".") - len(".imgcp-") - 16, 8
	if len(name) > room {
		sum := sha256.Sum256([]byte(name))
		name = name[:room-2*hash-1] + "-" + hex.EncodeToString(sum[:hash])
	}
	return "." + name + ".imgcp-" + suffix
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

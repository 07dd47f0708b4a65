// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// Probe says what format an image looks like: "qcow2", "qcow", "qed", "vmdk", or "raw" for all else, which refers to no
// other file. Only an image of which nobody declared the format may be probed.
func Probe(r io.ReaderAt) (string, error) {
	head := make([]byte, 2048) // as much as QEMU looks at (BLOCK_PROBE_BUF_SIZE is 512; descriptors begin with comments)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	head = head[:n]
	switch {
	case n >= 8 && string(head[:4]) == qcowMagic:
		if binary.BigEndian.Uint32(head[qcowVersionAt:]) == 1 {
			return "qcow", nil
		}
		return "qcow2", nil
	case bytes.HasPrefix(head, []byte(qedMagic)):
		return "qed", nil
	case bytes.HasPrefix(head, []byte(vmdkMagic)), bytes.HasPrefix(head, []byte(vmdkSignature)):
		return "vmdk", nil
	}
	return "raw", nil
}

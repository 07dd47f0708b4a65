// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"maps"
	"slices"
)

// OperandNames are the operands with their equals signs, for completion.
func OperandNames() []string {
	return []string{
		"if=", "of=", "bs=", "ibs=", "obs=", "count=", "skip=", "iseek=", "seek=", "oseek=", "conv=", "iflag=", "oflag=", "status=",
	}
}

// OperandValues are the names that an operand's list may have, sorted; nil for numbers and files.
func OperandValues(name string) []string {
	switch name {
	case "conv":
		return slices.Sorted(maps.Keys(convNames))
	case "iflag", "oflag":
		return slices.Sorted(maps.Keys(flagNames))
	case "status":
		return []string{string(None), string(NoXfer), string(Progress)}
	}
	return nil
}

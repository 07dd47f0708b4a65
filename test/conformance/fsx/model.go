// SPDX-License-Identifier: Apache-2.0

package fsx

import "slices"

// applyModel does to a slice what the operation does to the file.
func (o operation) applyModel(m []byte) []byte {
	end := o.offset + o.length
	switch o.kind {
	case write:
		m = grow(m, end)
		copy(m[o.offset:], o.data())
	case appendTo:
		m = append(m, o.data()...)
	case truncate:
		if o.offset < len(m) {
			// Clipped, so that growing again cannot bring old bytes back.
			return slices.Clip(m[:o.offset])
		}
		m = grow(m, o.offset)
	case allocate:
		m = grow(m, end)
	case punch, zeroKeep:
		clear(m[min(o.offset, len(m)):min(end, len(m))])
	case zero:
		m = grow(m, end)
		clear(m[o.offset:end])
	case collapse:
		m = slices.Delete(m, o.offset, end)
	case insert:
		m = slices.Insert(m, o.offset, make([]byte, o.length)...)
	case copyRange:
		m = grow(m, o.to+o.length)
		copy(m[o.to:o.to+o.length], m[o.offset:end])
	}
	return m
}

// expect is what a read must bring.
func (o operation) expect(m []byte) []byte {
	return m[min(o.offset, len(m)):min(o.offset+o.length, len(m))]
}

func grow(m []byte, size int) []byte {
	if size <= len(m) {
		return m
	}
	return append(m, make([]byte, size-len(m))...)
}

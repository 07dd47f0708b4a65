// SPDX-License-Identifier: Apache-2.0

package dd

// convert does conv=lcase, ucase and swab, in place but for swab.
func (r *records) convert(b []byte) []byte {
	switch {
	case r.op.Conv&LCase != 0:
		mapBytes(b, 'A', 'Z', 'a'-'A')
	case r.op.Conv&UCase != 0:
		mapBytes(b, 'a', 'z', 'A'-'a'+256)
	}
	if r.op.Conv&Swab != 0 {
		return r.swab.swap(b)
	}
	return b
}

// mapBytes adds to those bytes that lie in a range.
func mapBytes(b []byte, from, to byte, add int) {
	for i, c := range b {
		if c >= from && c <= to {
			b[i] = byte(int(c) + add)
		}
	}
}

// swabber swaps pairs of bytes; a pair may begin in one record and end in the next.
type swabber struct {
	held []byte // at most one
	out  []byte
}

func (s *swabber) swap(b []byte) []byte {
	s.out = append(append(s.out[:0], s.held...), b...)
	even := len(s.out) &^ 1
	for i := 0; i < even; i += 2 {
		s.out[i], s.out[i+1] = s.out[i+1], s.out[i]
	}
	s.held = append(s.held[:0], s.out[even:]...)
	return s.out[:even]
}

// rest is the last byte of an odd number, as it is.
func (s *swabber) rest() []byte {
	b := s.held
	s.held = nil
	return b
}

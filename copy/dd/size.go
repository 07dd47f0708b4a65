// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// ParseSize reads a number as GNU dd does: decimal, with suffixes c (1), w (2), b (512), k, K, M, G, T, P, E, Z, Y and KiB,
// … (powers of 1024), kB, kD, MB, … (powers of 1000). A suffix alone is one of it. A B behind all that changes nothing but
// how skip=, seek= and count= take the number, and one x multiplies: 80x18b. The error names s.
func ParseSize(s string) (int64, error) {
	n, err := parseProduct(s)
	if err == nil && n > math.MaxInt64 {
		err = errors.New("too large")
	}
	if err != nil {
		return 0, fmt.Errorf("invalid number %q: %w", s, err)
	}
	return int64(n), nil
}

// parseProduct is math.MaxUint64 for anything larger. Only the first factor may end with the B that stands for bytes.
func parseProduct(s string) (uint64, error) {
	first, second, product := strings.Cut(s, "x")
	a, err := parseFactor(first)
	if rest, inBytes := strings.CutSuffix(first, "B"); err != nil && inBytes && !strings.HasSuffix(rest, "B") {
		a, err = parseFactor(rest)
	}
	if err != nil || !product {
		return a, err
	}
	if strings.HasSuffix(first, "B") && strings.Contains(second, "B") {
		return 0, errors.New("only one of two factors may count bytes")
	}
	b, err := parseFactor(second)
	return times(a, b), err
}

// parseFactor takes leading white space and a plus sign, as strtoumax(3) does.
func parseFactor(s string) (uint64, error) {
	number := strings.TrimPrefix(strings.TrimLeft(s, " \t\n\v\f\r"), "+")
	suffix := strings.TrimLeft(number, "0123456789")
	digits := strings.TrimSuffix(number, suffix)
	n := uint64(1)
	if digits != "" {
		n, _ = strconv.ParseUint(digits, 10, 64) // the largest number if it is larger
	} else if suffix == "" || suffix != s {
		return 0, errors.New("it is not a number")
	}
	m, ok := multiplier(suffix)
	if !ok {
		return 0, fmt.Errorf("unknown suffix %q", suffix)
	}
	return times(n, m), nil
}

// times multiplies up to math.MaxUint64.
func times(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	if high > 0 {
		return math.MaxUint64
	}
	return low
}

// multiplier knows the suffixes.
func multiplier(suffix string) (uint64, bool) {
	switch suffix {
	case "", "c":
		return 1, true
	case "w":
		return 2, true
	case "b":
		return 512, true
	}
	const units = "KMGTPEZY"
	power := strings.IndexByte(units, suffix[0]) + 1
	if suffix[0] == 'k' {
		power = 1
	}
	if power == 0 {
		return 0, false
	}
	base := uint64(1024)
	switch suffix[1:] {
	case "", "iB":
	case "B", "D":
		base = 1000
	default:
		return 0, false
	}
	n := uint64(1)
	for range power {
		n = times(n, base)
	}
	return n, true
}

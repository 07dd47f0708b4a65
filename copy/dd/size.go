package dd

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseSize reads a number as GNU dd does: decimal, with suffixes c (1), w (2), b (512), k, K, M, G, T, P, E and KiB, …
// (powers of 1024), kB, KB, MB, … (powers of 1000), B (1), and factors joined by x: 2x80x18b. The error names s.
func ParseSize(s string) (int64, error) {
	n := int64(1)
	for factor := range strings.SplitSeq(s, "x") {
		f, err := parseFactor(factor)
		if err != nil {
			return 0, fmt.Errorf("invalid number %q: %w", s, err)
		}
		if n, err = times(n, f); err != nil {
			return 0, fmt.Errorf("invalid number %q: %w", s, err)
		}
	}
	return n, nil
}

func parseFactor(s string) (int64, error) {
	digits := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(s)
	}
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	if err != nil {
		return 0, errors.New("no number, or one that is too large")
	}
	m, ok := multiplier(s[digits:])
	if !ok {
		return 0, fmt.Errorf("unknown suffix %q", s[digits:])
	}
	return times(n, m)
}

func times(a, b int64) (int64, error) {
	if b != 0 && a > math.MaxInt64/b {
		return 0, errors.New("too large")
	}
	return a * b, nil
}

// multiplier knows the suffixes.
func multiplier(suffix string) (int64, bool) {
	switch suffix {
	case "", "c", "B", "cB":
		return 1, true
	case "w", "wB":
		return 2, true
	case "b", "bB":
		return 512, true
	}
	const units = "KMGTPE"
	power := strings.IndexByte(units, suffix[0]) + 1
	if suffix[0] == 'k' {
		power = 1
	}
	if power == 0 {
		return 0, false
	}
	base := int64(1024)
	switch suffix[1:] {
	case "", "iB":
	case "B":
		base = 1000
	default:
		return 0, false
	}
	n := int64(1)
	for range power {
		n *= base
	}
	return n, true
}

// SPDX-License-Identifier: Apache-2.0

package quiet

import (
	"strconv"
	"testing"
)

func TestRatio(t *testing.T) {
	for _, c := range []struct {
		rounds []float64
		want   string
	}{
		{nil, "-"},
		{[]float64{1.2, 0.8, 1}, "1.00 (0.80–1.20)"},
		{[]float64{1, 2.1, 1.5}, "1.50 (1.00–2.10) rounds disagree"},
	} {
		if got := Ratio(c.rounds); got != c.want {
			t.Errorf("%v: %s, want %s", c.rounds, got, c.want)
		}
	}
}

func TestLoad(t *testing.T) {
	if _, err := strconv.ParseFloat(Load(), 64); err != nil {
		t.Error(err)
	}
}

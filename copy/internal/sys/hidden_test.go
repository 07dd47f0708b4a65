// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"strings"
	"testing"
)

// TestHiddenName: names that are cut are still two, and fit with what else is added to them.
func TestHiddenName(t *testing.T) {
	long := strings.Repeat("a", 254)
	one, other := HiddenName(long+"1", "partial"), HiddenName(long+"2", "partial")
	if one == other || one != HiddenName(long+"1", "partial") {
		t.Errorf("two images share %s, or it is not the same each time", one)
	}
	for _, suffix := range []string{"partial", "state.new", "0123456789", ""} {
		if n := len(HiddenName(long+"1", suffix)); n > 255 {
			t.Errorf("%q: %d bytes", suffix, n)
		}
	}
	if got := HiddenName("vm1.img", "partial"); got != ".vm1.img.imgcp-partial" {
		t.Errorf("a short name becomes %s", got)
	}
}

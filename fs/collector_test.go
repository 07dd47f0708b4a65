// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"reflect"
	"testing"
)

// Memory is given back once after each burst, and not while it lasts.
func TestLeftovers(t *testing.T) {
	const mib = 1 << 20
	var l leftovers
	var got []bool
	for _, allocated := range []uint64{mib, 60 * mib, 120 * mib, 120*mib + 1000, 120*mib + 2000, 121 * mib, 121*mib + 1000, 130 * mib, 130*mib + 1000} {
		got = append(got, l.due(allocated))
	}
	want := []bool{false, false, false, true, false, false, false, false, true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

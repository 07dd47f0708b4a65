// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"testing"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// mustCopy copies with options changed by change.
func mustCopy(t testing.TB, from, to string, change func(*Options)) Result {
	t.Helper()
	r, err := tryCopy(from, to, change)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryCopy(from, to string, change func(*Options)) (Result, error) {
	o := Defaults()
	if change != nil {
		change(&o)
	}
	return Copy(context.Background(), from, to, o)
}

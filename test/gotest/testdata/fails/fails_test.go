// SPDX-License-Identifier: Apache-2.0

package fails

import "testing"

func TestFails(t *testing.T) {
	t.Run("one", func(t *testing.T) {
		t.Cleanup(func() {
			println("a long log of others")
		})
		t.Log("it begins")
		t.Error("the reason")
	})
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"imgward/test/harness"
)

// TestLegitStrict is the matrix once more under the preset "strict", as an administrator would set it up.
func TestLegitStrict(t *testing.T) {
	if harness.Native() {
		return // there is no policy
	}
	h := harness.New(t)
	h.Strict = true
	policy := filepath.Join(h.Dir, "policy.toml")
	preset := harness.Run(t, harness.Imgward(), "policy", "show", "--preset", "strict").OK(t)
	if err := os.WriteFile(policy, []byte(preset+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	v := h.Mount(t, "-o", "policy="+policy)
	for _, c := range chosen(0, again) {
		t.Run(c.name, func(t *testing.T) { runLegit(t, h, v, c.run) })
	}
}

// stillDefined is said of an image that no running VM uses any more, but that a persistent definition still names. That
// is what the preset "strict" protects, so there it takes an exception to go on.
func stillDefined(t *testing.T, h *harness.Host, path string) {
	t.Helper()
	if !h.Strict {
		return
	}
	if r := harness.Run(t, harness.Imgward(), "check", "unlink", path); r.Exit != 3 {
		t.Errorf("%s is not protected under strict: exit %d", path, r.Exit)
	}
	harness.Run(t, harness.Imgward(), "allow", "--op", "all", "--for", "1m", "--reason", "the matrix goes on", path).OK(t)
}

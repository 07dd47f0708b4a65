// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// imgward is the binary under test: IMGWARD names one, else Build makes it from this tree.
func imgward(tools string) string {
	if path := os.Getenv("IMGWARD"); path != "" {
		return path
	}
	return filepath.Join(tools, "imgward")
}

func buildImgward(ctx context.Context, tools string) error {
	path := imgward(tools)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return goBuild(ctx, path, "imgward/cmd/imgward")
}

func goBuild(ctx context.Context, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	// As it is shipped: one static binary.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

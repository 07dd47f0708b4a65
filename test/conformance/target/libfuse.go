// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// fetchLibfuse gets libfuse's examples, its headers and its static library from Debian into a directory. passthrough_hp
// is in the source package alone, which is asked for with lists of packages of its own: the host's stay as they are.
//
//go:embed libfuse.sh
var fetchLibfuse string

// buildExample compiles one of libfuse's examples, with optimisation, from what fetchLibfuse has brought. That stays in the
// tests' cache.
func buildExample(ctx context.Context, tools, name string) error {
	cache := os.Getenv("IMGWARD_TEST_CACHE")
	if cache == "" {
		cache = "/var/cache/imgward-test"
	}
	dir := filepath.Join(cache, "libfuse")
	fetch := exec.CommandContext(ctx, "sh", "-euc", fetchLibfuse, "libfuse.sh", dir)
	if text, err := fetch.CombinedOutput(); err != nil {
		return fmt.Errorf("get libfuse's examples from Debian: %w\n%s", err, text)
	}
	// The examples include a config.h that only libfuse's own build makes.
	if err := os.WriteFile(filepath.Join(tools, "config.h"), []byte(exampleConfig), 0o600); err != nil {
		return err
	}
	compiler, source := "gcc", filepath.Join(dir, "example", name+".c")
	if _, err := os.Stat(source); err != nil {
		compiler, source = "g++", filepath.Join(dir, "example", name+".cc")
	}
	build := exec.CommandContext(ctx, compiler, "-O2", "-w", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-I", tools, "-I", filepath.Join(dir, "include"),
		source, "-o", filepath.Join(tools, name), filepath.Join(dir, "libfuse3.a"), "-lpthread", "-ldl")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w\n%s", source, err, text)
	}
	return nil
}

// exampleConfig says what Linux has; without HAVE_COPY_FILE_RANGE and the like the examples leave operations out.
const exampleConfig = `#define HAVE_COPY_FILE_RANGE 1
#define HAVE_FALLOCATE 1
#define HAVE_FDATASYNC 1
#define HAVE_POSIX_FALLOCATE 1
#define HAVE_SETXATTR 1
#define HAVE_UTIMENSAT 1
`

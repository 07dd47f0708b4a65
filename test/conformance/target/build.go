package target

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// examples is where Debian's libfuse3-dev puts libfuse's own.
const examples = "/usr/share/doc/libfuse3-dev/examples"

// buildExample compiles one of libfuse's examples as its Makefile would, with optimisation.
func buildExample(ctx context.Context, tools, name string) error {
	source := filepath.Join(examples, name+".c")
	if _, err := os.Stat(source); err != nil {
		return fmt.Errorf("install libfuse3-dev: %w", err)
	}
	flags, err := exec.CommandContext(ctx, "pkg-config", "--cflags", "--libs", "fuse3").Output()
	if err != nil {
		return fmt.Errorf("pkg-config fuse3: %w", err)
	}
	// The examples include a config.h that only libfuse's own build makes.
	if err := os.WriteFile(filepath.Join(tools, "config.h"), []byte(exampleConfig), 0o600); err != nil {
		return err
	}
	args := []string{"-O2", "-w", "-I", tools, "-D_GNU_SOURCE", source, "-o", filepath.Join(tools, name)}
	return run(ctx, "gcc", append(args, strings.Fields(string(flags))...)...)
}

// exampleConfig says what Linux has; without HAVE_COPY_FILE_RANGE and the like the examples leave operations out.
const exampleConfig = `#define HAVE_COPY_FILE_RANGE 1
#define HAVE_FALLOCATE 1
#define HAVE_FDATASYNC 1
#define HAVE_POSIX_FALLOCATE 1
#define HAVE_SETXATTR 1
#define HAVE_UTIMENSAT 1
`

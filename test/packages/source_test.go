// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imgward/test/need"
)

// make runs a target of the Makefile, and returns what it says.
func makeTarget(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("make", append([]string{"-s"}, args...)...)
	cmd.Dir = dir
	cmd.Env = os.Environ()
	var errors strings.Builder // go says there what it downloads
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("make %v: %v\n%s%s", args, err, out, &errors)
	}
	return strings.TrimSpace(string(out))
}

// release is the one that the changelog begins with.
func release(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^## (\d+\.\d+\.\d+) \(`).FindSubmatch(text)
	if found == nil {
		t.Fatal("the changelog has no release")
	}
	return string(found[1])
}

// TestRecipes: the recipes of distributions are of the release that the changelog begins with.
func TestRecipes(t *testing.T) {
	text := func(file string) string {
		b, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	release := release(t)
	for file, line := range map[string]string{
		"dist/arch/PKGBUILD": "\npkgver=" + release + "\n", "dist/rpm/imgward.spec": "\nVersion:        " + release + "\n",
		"README.md": "imgward_" + release + "_amd64.deb",
	} {
		if !strings.Contains(text(file), line) {
			t.Errorf("%s has no %q", file, line)
		}
	}
	if out, err := exec.Command("bash", "-n", "../../dist/arch/PKGBUILD").CombinedOutput(); err != nil {
		t.Errorf("PKGBUILD: %v %s", err, out)
	}
}

// TestSource: the tarball builds without a network and without git, and knows its version; the spec file packs all that make
// install installs, and no more (rpmbuild looks at both); uninstall takes all of it away but the policy.
func TestSource(t *testing.T) {
	need.Long(t)
	dir := t.TempDir()
	spec, err := filepath.Abs("../../dist/rpm/imgward.spec")
	if err != nil {
		t.Fatal(err)
	}
	tarball := makeTarget(t, "../..", "tarball", "VERSION="+release(t))
	defer os.Remove(tarball)
	cmd := exec.Command("rpmbuild", "-bb", "--nodeps", "--noclean", "--define", "_topdir "+dir, "--define", "_sourcedir "+filepath.Dir(tarball), spec)
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=vendor", "GOPROXY=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("rpmbuild: %v\n%s", err, out)
	}
	trees, _ := filepath.Glob(dir + "/BUILD/imgward-*")
	stages, _ := filepath.Glob(dir + "/BUILDROOT/imgward-*")
	if len(trees) != 1 || len(stages) != 1 {
		t.Fatalf("rpmbuild has made %q and %q", trees, stages)
	}
	tree, stage := trees[0], stages[0]
	if unit, _ := os.ReadFile(stage + "/usr/lib/systemd/system/imgward@.service"); !strings.Contains(string(unit), "ExecStart=/usr/bin/imgward ") {
		t.Errorf("the unit is\n%s", unit)
	}
	makeTarget(t, tree, "uninstall", "DESTDIR="+stage, "PREFIX=/usr")
	left, err := exec.Command("find", stage, "-path", "*/usr/lib/.build-id", "-prune", "-o", "-path", "*/usr/share/licenses", "-prune", "-o", "-not", "-type", "d", "-print").Output()
	if err != nil || strings.TrimSpace(string(left)) != stage+"/etc/imgward/policy.toml" {
		t.Errorf("uninstall leaves: %v\n%s", err, left)
	}
}

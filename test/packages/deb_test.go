package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const nfpm = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.41.3" // as in the Makefile

// build makes a package (deb, rpm) with a version of its own, through the same files as `make packages`.
func build(t *testing.T, kind, version string) string {
	t.Helper()
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), version+"."+kind)
	for _, args := range [][]string{
		{"dist/packages/stage", "amd64"},
		{"go", "run", nfpm, "package", "-f", "dist/packages/nfpm.yaml", "-p", kind, "-t", file},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "VERSION="+version, "ARCH=amd64", "SOURCE_DATE_EPOCH=1700000000")
		if args[0] != "go" {
			cmd.Path = filepath.Join(top, args[0])
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	return file
}

// An administrator's life with the package: install, protect, edit the policy, upgrade with a VM running, try to remove
// it too early, remove it, purge it.
func TestDeb(t *testing.T) {
	r := newRoot(t)
	r.give(t, build(t, "deb", "1.0.0"), "/1.deb")
	r.give(t, build(t, "deb", "1.0.1"), "/2.deb")
	r.run(t, "dpkg -i /1.deb")
	if got := r.run(t, "imgward version"); !strings.Contains(got, "1.0.0") {
		t.Fatalf("installed is %s", got)
	}
	for _, file := range []string{
		"/usr/share/man/man8/imgward-mount.8.gz", "/usr/lib/systemd/system/imgward@.service", "/usr/sbin/mount.imgward",
		"/usr/share/bash-completion/completions/imgward", "/etc/imgward/policy.toml",
	} {
		r.run(t, "test -s "+file)
	}
	r.run(t, `printf '\n[[rule]]\npaths = ["golden*"]\nprotect = "always"\n' >>/etc/imgward/policy.toml`)
	r.run(t, "truncate -s 1M "+images+"/vm.img "+images+"/golden.img")
	r.run(t, "mount -t imgward imgward "+images+" -o nodev")

	vm := r.startVM(t)
	refused := func(file string) {
		t.Helper()
		if out, err := r.try(": >" + images + "/" + file); err == nil || !strings.Contains(out, "busy") {
			t.Errorf("truncating %s: %v %s", file, err, out)
		}
	}
	refused("vm.img")
	refused("golden.img")

	r.run(t, "dpkg -i /2.deb")
	if got := r.run(t, "imgward status --json"); !strings.Contains(got, `"version":"1.0.1"`) || !strings.Contains(got, `"takeovers":1`) {
		t.Errorf("after the upgrade: %s", got)
	}
	r.run(t, "kill -0 "+vm)
	r.run(t, "grep -q golden /etc/imgward/policy.toml")
	refused("vm.img")
	refused("golden.img")

	if out, err := r.try("dpkg -r imgward"); err == nil || !strings.Contains(out, "is in use") {
		t.Errorf("removed under a running VM: %v %s", err, out)
	}
	refused("vm.img")
	r.stopVM(t, vm)
	r.run(t, "dpkg -r imgward")
	for _, check := range []string{
		"! findmnt -t fuse.imgward " + images, "test -f " + images + "/vm.img", "grep golden /etc/imgward/policy.toml",
		"! test -e /usr/bin/imgward",
	} {
		if out, err := r.try(check); err != nil {
			t.Errorf("after the removal: %s: %v %s", check, err, out)
		}
	}
	r.run(t, "dpkg -P imgward && ! test -e /etc/imgward/policy.toml && ! ls /run/imgward/*")
}

// The same sources give the same package, byte for byte.
func TestReproducible(t *testing.T) {
	a, err := os.ReadFile(build(t, "deb", "1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(build(t, "deb", "1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Error("two builds differ")
	}
}

// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/need"
)

const nfpm = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.41.3" // as in the Makefile

// build makes packages (deb, rpm) with a version of its own, through the same files as `make packages`.
func build(t *testing.T, version string, kinds ...string) (files []string) {
	t.Helper()
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	steps := [][]string{{top + "/dist/packages/stage", "amd64"}}
	for _, kind := range kinds {
		file := filepath.Join(t.TempDir(), version+"."+kind)
		files = append(files, file)
		steps = append(steps, []string{"go", "run", nfpm, "package", "-f", "dist/packages/nfpm.yaml", "-p", kind, "-t", file})
	}
	for _, args := range steps {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "VERSION="+version, "ARCH=amd64", "SOURCE_DATE_EPOCH=1700000000", "MAINTAINER=imgward packagers <packagers@imgward.invalid>")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	return files
}

// TestPackages: what is built once lives with dpkg and with rpm.
func TestPackages(t *testing.T) {
	need.Have(t, need.View()...)
	first, second := build(t, "1.0.0", "deb", "rpm"), build(t, "1.0.1", "deb", "rpm")
	t.Run("deb", func(t *testing.T) { debLife(t, first[0], second[0]) })
	t.Run("rpm", func(t *testing.T) { rpmLife(t, first[1], second[1]) })
	t.Run("lint", func(t *testing.T) { // nothing is found but what a file in dist/packages gives a reason for
		need.Long(t)
		need.Have(t, need.Tools("lintian", "rpmlint"))
		t.Run("lintian", func(t *testing.T) {
			if out, err := exec.Command("lintian", "--allow-root", "--tag-display-limit", "0", "--fail-on", "error,warning", first[0]).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
		t.Run("rpmlint", func(t *testing.T) {
			r := newRoot(t) // cpio, with which it unpacks, follows the package's absolute paths
			r.give(t, first[1], "/1.rpm")
			r.give(t, "../../dist/packages/rpmlint.toml", "/rpmlint.toml")
			if out := r.run(t, "rpmlint --config /rpmlint.toml /1.rpm"); !strings.Contains(out, "0 errors, 0 warnings") {
				t.Error(out)
			}
		})
	})
}

// An administrator's life with the package: install, protect, edit the policy, upgrade with a VM running, try to remove
// it too early, remove it, purge it.
func debLife(t *testing.T, first, second string) {
	r := newRoot(t) // which lasts for ten minutes
	r.give(t, first, "/1.deb")
	r.give(t, second, "/2.deb")
	r.run(t, "dpkg -i /1.deb")
	if got := r.run(t, "imgward version"); !strings.Contains(got, "1.0.0") {
		t.Fatalf("installed is %s", got)
	}
	for _, file := range []string{
		"/usr/share/man/man8/imgward-mount.8.gz", "/usr/lib/systemd/system/imgward@.service", "/usr/lib/systemd/system/imgward-guard.service", "/usr/sbin/mount.imgward", "/usr/sbin/mount.fuse.imgward", "/usr/sbin/mount.fuse3.imgward",
		"/usr/share/bash-completion/completions/imgward", "/etc/imgward/policy.toml",
	} {
		r.run(t, "test -s "+file)
	}
	r.run(t, `printf '\n[[rule]]\npaths = ["golden*"]\nprotect = "always"\n' >>/etc/imgward/policy.toml`)
	r.run(t, "truncate -s 1M "+images+"/vm.img "+images+"/golden.img")
	r.run(t, "mount -t imgward imgward "+images+" -o nodev")

	// An earlier and a later view, one with a name that a shell would take apart.
	r.run(t, "mkdir '/var/lib/a b' /var/lib/late && imgward mount '/var/lib/a b' && imgward mount /var/lib/late")
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
	if n := r.run(t, "imgward status --json | grep -c '\"type\":\"view\"'"); n != "3" {
		t.Errorf("%s of 3 views are left after a removal that was refused", n)
	}
	r.stopVM(t, vm)
	r.run(t, "mkdir -p /etc/systemd/system/multi-user.target.wants /var/lib/imgcp && touch /var/log/imgward.log /var/log/imgward.log.1.gz /var/lib/imgcp/x && "+
		"ln -s /usr/lib/systemd/system/imgward@.service /etc/systemd/system/multi-user.target.wants/imgward@srv.service")
	r.run(t, "dpkg -r imgward")
	for _, check := range []string{
		"! findmnt -t fuse.imgward -n -o TARGET | grep -E '^(" + images + "|/var/lib/(a b|late))'", "! ls /etc/systemd/system/*/imgward@*", "test -f " + images + "/vm.img", "grep golden /etc/imgward/policy.toml",
		"! test -e /usr/bin/imgward",
	} {
		if out, err := r.try(check); err != nil {
			t.Errorf("after the removal: %s: %v %s", check, err, out)
		}
	}
	r.run(t, "dpkg -P imgward && ! ls -d /etc/imgward /etc/logrotate.d/imgward /var/lib/imgcp /var/log/imgward* /run/imgward/* 2>/dev/null")
}

// The same sources give the same package, byte for byte.
func TestReproducible(t *testing.T) {
	need.Long(t)
	a, err := os.ReadFile(build(t, "1.0.0", "deb")[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(build(t, "1.0.0", "deb")[0])
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Error("two builds differ")
	}
}

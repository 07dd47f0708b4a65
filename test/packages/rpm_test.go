// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"strings"
	"testing"
)

// The same life with the other package manager. Its database is empty here, so what the package needs is not looked for.
func rpmLife(t *testing.T, first, second string) {
	r := newRoot(t) // which lasts for ten minutes
	r.give(t, first, "/1.rpm")
	r.give(t, second, "/2.rpm")
	const rpm = "rpm --dbpath /var/lib/imgward-rpm "
	r.run(t, rpm+"--nodeps -i /1.rpm")
	if got := r.run(t, "imgward version"); !strings.Contains(got, "1.0.0") {
		t.Fatalf("installed is %s", got)
	}
	for _, file := range []string{
		"/usr/share/man/man8/imgward-mount.8.gz", "/usr/lib/systemd/system/imgward@.service", "/usr/lib/systemd/system/imgward-guard.service", "/usr/sbin/mount.imgward", "/usr/sbin/mount.fuse.imgward", "/usr/sbin/mount.fuse3.imgward",
		"/usr/share/zsh/site-functions/_imgcp", "/usr/share/doc/imgward/LICENSE",
	} {
		r.run(t, "test -s "+file)
	}
	if conf := r.run(t, rpm+"-qc imgward"); conf != "/etc/imgward/policy.toml\n/etc/logrotate.d/imgward" {
		t.Errorf("configuration files: %q", conf)
	}
	r.run(t, `printf '\n[[rule]]\npaths = ["golden*"]\nprotect = "always"\n' >>/etc/imgward/policy.toml`)
	r.run(t, "truncate -s 1M "+images+"/vm.img "+images+"/golden.img && imgward mount "+images)
	vm := r.startVM(t)
	refused := func(when string) {
		t.Helper()
		for _, file := range []string{"vm.img", "golden.img"} {
			if out, err := r.try(": >" + images + "/" + file); err == nil || !strings.Contains(out, "busy") {
				t.Errorf("%s: truncating %s: %v %s", when, file, err, out)
			}
		}
	}
	refused("installed")
	r.run(t, rpm+"--nodeps -U /2.rpm")
	if got := r.run(t, "imgward status --json"); !strings.Contains(got, `"version":"1.0.1"`) || !strings.Contains(got, `"takeovers":1`) {
		t.Errorf("after the upgrade: %s", got)
	}
	r.run(t, "kill -0 "+vm)
	r.run(t, "grep -q golden /etc/imgward/policy.toml")
	refused("upgraded")

	if out, err := r.try(rpm + "-e imgward"); err == nil || !strings.Contains(out, "is in use") {
		t.Errorf("erased under a running VM: %v %s", err, out)
	}
	r.run(t, rpm+"-q imgward")
	refused("not erased")
	r.stopVM(t, vm)
	r.run(t, rpm+"-e imgward")
	for _, check := range []string{
		"! findmnt -t fuse.imgward " + images, "test -f " + images + "/vm.img", "! test -e /usr/bin/imgward", "! ls /run/imgward/*",
		"grep golden /etc/imgward/policy.toml*", // erased, an edited file stays under another name
	} {
		if out, err := r.try(check); err != nil {
			t.Errorf("erased: %s: %v %s", check, err, out)
		}
	}
}

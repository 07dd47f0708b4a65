// SPDX-License-Identifier: Apache-2.0

package onefs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const images = "/var/lib/libvirt/images"

// host makes a root directory of files.
func host(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFind(t *testing.T) {
	root := host(t, map[string]string{
		"etc/crontab":                      "# rsync -ax / /x\n17 3 * * * root nice rsync -aHAXx --delete / backup:/srv/host\n",
		"etc/cron.daily/home":              "#!/bin/sh\ncp -ax /home /backup\ntar cf /b.tar --one-file-system \\\n  -C / .\n",
		"etc/cron.d/nightly":               "0 2 * * * root /usr/local/sbin/nightly >/dev/null 2>&1\n",
		"usr/local/sbin/nightly":           "#!/bin/bash\nset -e\nborg create --stats -x repo::a \"$ROOT\"\nfind /var -xdev -name '*.img' | cpio -o >x\n",
		"etc/systemd/system/r.service":     "[Service]\nExecStart=/usr/bin/restic backup --one-file-system /var/lib\n",
		"usr/lib/systemd/system/t.service": "[Service]\nExecStart=-/bin/sh -c 'cd /; tar c --one-file-system / | ssh b cat >x'\n",
		"etc/rsnapshot.conf":               "one_fs\t1\nbackup\t/var/\tlocalhost/\n",
		"etc/borgmatic/config.yaml":        "source_directories:\n    - /\none_file_system: true\n",
	})
	got := map[string]bool{}
	for _, b := range Find(root, images) {
		got[strings.TrimPrefix(b.Where, root)] = b.Sure
	}
	want := map[string]bool{
		"/etc/crontab:2": true, "/etc/cron.daily/home:3": true, "/usr/local/sbin/nightly:3": false, "/usr/local/sbin/nightly:4": true,
		"/etc/systemd/system/r.service:2": true, "/usr/lib/systemd/system/t.service:2": true, "/etc/rsnapshot.conf": true, "/etc/borgmatic/config.yaml": true,
	}
	for where, sure := range want {
		if s, ok := got[where]; !ok || s != sure {
			t.Errorf("%s: found %v, sure %v; want sure %v", where, ok, s, sure)
		}
		delete(got, where)
	}
	if len(got) > 0 {
		t.Errorf("found as well: %v", got)
	}
}

// TestFindNothing: commands that reach the images, or have nothing to do with them.
func TestFindNothing(t *testing.T) {
	root := host(t, map[string]string{
		"etc/crontab": strings.Join([]string{
			"1 1 * * * root rsync -aX / backup:/srv",              // crosses file systems
			"1 1 * * * root rsync -ax / " + images + " backup:/s", // names the directory as a second source
			"1 1 * * * root rsync -ax --exclude=" + images + " / backup:/s",
			"1 1 * * * root rsync -ax /home /",
			"1 1 * * * root rsync -a -e 'ssh -x' / b:/s",
			"1 1 * * * root find /tmp -xdev -delete",
			"1 1 * * * root tar -x -f b.tar -C /",
			"1 1 * * * root du -x /",
		}, "\n") + "\n",
		"etc/borgmatic/config.yaml": "source_directories:\n    - /home\none_file_system: true\n",
		"etc/rsnapshot.conf":        "#one_fs\t1\nbackup\t/\tlocalhost/\n",
	})
	if got := Find(root, images); len(got) > 0 {
		t.Errorf("found %+v", got)
	}
}

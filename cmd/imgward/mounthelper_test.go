// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestHelperArguments(t *testing.T) {
	for line, want := range map[string]string{
		"/usr/bin/imgward status --json":                         "status --json",
		"/sbin/mount.imgward /img /img -o rw,nosuid":             "mount -o nosuid -- /img",
		"/sbin/mount.imgward imgward /img -o rw":                 "mount -o  -- /img",
		"/sbin/mount.imgward /srv/i /img -s -n -v -o policy=/p":  "mount -o policy=/p --backing /srv/i -- /img",
		"/sbin/mount.imgward /srv/i /img -sv -t imgward -N /p/1": "mount --backing /srv/i -- /img",
		"/sbin/mount.imgward /srv/i":                             "mount -- /srv/i",

		"/sbin/mount.fuse3.imgward /i /img -t fuse3.imgward":                                                             "mount --backing /i -- /img",
		"/sbin/mount.fuse.imgward /img /img -o rw,nosuid -t fuse.imgward":                                                "mount -o nosuid -- /img",
		"imgward /srv/i /img -o rw,nodev,dev,suid":                                                                       "mount -o nodev --backing /srv/i -- /img",
		"imgward /img /img -o ro,remount,relatime,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576": "mount -o ro,remount,relatime -- /img",
		"imgward /img /img -o rw,remount":                                                                                "mount -o rw,remount -- /img",
		"imgward allow --op write /img/a --for":                                                                          "allow --op write /img/a --for",
		"/sbin/mount.imgward /a /a -o rw,user_id=0":                                                                      "mount -o user_id=0 -- /a",
	} {
		if got := strings.Join(arguments(strings.Split(line, " ")), " "); got != want {
			t.Errorf("%s\n got  %s\n want %s", line, got, want)
		}
	}
}

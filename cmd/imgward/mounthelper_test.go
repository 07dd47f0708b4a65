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
	} {
		if got := strings.Join(arguments(strings.Split(line, " ")), " "); got != want {
			t.Errorf("%s\n got  %s\n want %s", line, got, want)
		}
	}
}

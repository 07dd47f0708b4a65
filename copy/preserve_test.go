// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
)

// attributes of the image, and whether a copy may have them.
var attributes = map[string]bool{
	"user.note":                    true,
	"trusted.mine":                 true,
	"trusted.libvirt.security.dac": false,
	"trusted.libvirt.security.ref": false,
}

func decorated(t *testing.T, path string) {
	t.Helper()
	testimg.Write(t, path, "image")
	for name := range attributes {
		value := "+1234:+5678"
		if err := unix.Setxattr(path, name, []byte(value), 0); err != nil {
			t.Fatal(name, err)
		}
	}
	testvol.Run(t, "setfacl", "-m", "u:4711:r", path)
	when := time.Date(2014, 2, 3, 4, 5, 6, 789, time.UTC)
	if err := errors.Join(os.Chown(path, 107, 107), os.Chtimes(path, when, when)); err != nil {
		t.Fatal(err)
	}
}

func TestPreserve(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	decorated(t, src+"/image")
	mustCopy(t, src+"/image", dst+"/copy", func(o *Options) { o.Preserve = true })
	for name, kept := range attributes {
		var b [64]byte
		if _, err := unix.Getxattr(dst+"/copy", name, b[:]); (err == nil) != kept {
			t.Errorf("%s: %v; is it to be kept: %v", name, err, kept)
		}
	}
	was, is := testimg.Stat(t, src+"/image"), testimg.Stat(t, dst+"/copy")
	if is.Uid != 1234 || is.Gid != 5678 {
		t.Errorf("owner %d:%d: the disk of a running domain goes back to whom libvirt remembers, 1234:5678", is.Uid, is.Gid)
	}
	if is.Mode != was.Mode || is.Mtim != was.Mtim {
		t.Errorf("mode %o, mtime %v; of the source: %o, %v", is.Mode, is.Mtim, was.Mode, was.Mtim)
	}
	if got, want := acl(t, dst+"/copy"), acl(t, src+"/image"); got != want {
		t.Errorf("ACL\n%s\nof the source:\n%s", got, want)
	}
}

func acl(t *testing.T, path string) string {
	t.Helper()
	return testvol.Run(t, "getfacl", "--numeric", "--omit-header", "--absolute-names", path)
}

func TestNothingIsPreservedUnasked(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	decorated(t, src+"/image")
	mustCopy(t, src+"/image", dst+"/copy", nil)
	if st := testimg.Stat(t, dst+"/copy"); int(st.Uid) != os.Geteuid() || time.Since(time.Unix(st.Mtim.Unix())) > time.Hour {
		t.Errorf("owner %d, mtime %v: nobody asked for that", st.Uid, st.Mtim)
	}
}

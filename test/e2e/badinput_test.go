// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

// badMounts are commands that must fail with a message that says what is wrong, and leave no mount behind. The scripts
// run with IMGWARD, DIR (a directory with a file "file" and a directory "sub") and OUT.
var badMounts = []struct {
	name, script string
	exit         int
	says         []string
}{
	{"missing", `$IMGWARD mount $DIR/none`, 1, []string{"none", "no such file or directory"}},
	{"a file", `$IMGWARD mount $DIR/file`, 1, []string{"file", "not a directory"}},
	{"backing missing", `$IMGWARD mount --backing $DIR/none $DIR`, 1, []string{"none", "no such file or directory"}},
	{"backing is a file", `$IMGWARD mount --backing $DIR/file $DIR`, 1, []string{"not a directory"}},
	{"inside its own backing", `$IMGWARD mount --backing $DIR $DIR/sub`, 1, []string{"inside"}},
	{"not root", `setpriv --reuid=65534 --regid=65534 --clear-groups $IMGWARD mount $DIR`, 1, []string{"root"}},
	{"no CAP_SYS_ADMIN", `setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin $IMGWARD mount $DIR`, 1,
		[]string{"CAP_SYS_ADMIN"}},
	{"no /dev/fuse", `unshare -m sh -c 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec $IMGWARD mount $DIR'`, 1, []string{"/dev/fuse", "FUSE"}},
	{"unknown option", `$IMGWARD mount -o fast $DIR`, 2, []string{"fast"}},
	{"unknown flag", `$IMGWARD mount --fast $DIR`, 2, []string{"--fast"}},
	{"no directory", `$IMGWARD mount`, 2, nil},
	{"two directories", `$IMGWARD mount $DIR $OUT`, 2, nil},
	{"unknown command", `$IMGWARD protect $DIR`, 2, []string{"protect"}},
	{"umount of no view", `$IMGWARD umount $DIR`, 1, []string{"not an imgward view"}},
	{"status of no view", `$IMGWARD status $DIR`, 1, []string{"view"}},
	{"who of nothing", `$IMGWARD who $DIR/none`, 1, []string{"none"}},
	{"check of no operation", `$IMGWARD check melt $DIR/file`, 2, []string{"melt"}},
}

func TestBadMounts(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	harness.Sh(t, `touch "$DIR/file"; mkdir "$DIR/sub"`, "DIR="+h.Images).OK(t)
	for _, c := range badMounts {
		t.Run(c.name, func(t *testing.T) {
			r := harness.Sh(t, c.script, "IMGWARD="+harness.Imgward(), "DIR="+h.Images, "OUT="+h.Out)
			if r.Exit != c.exit {
				t.Errorf("exit %d, want %d\n%s%s", r.Exit, c.exit, r.Stdout, r.Stderr)
			}
			if r.Stderr == "" {
				t.Error("failed without a word")
			}
			for _, want := range c.says {
				if !strings.Contains(r.Stderr, want) {
					t.Errorf("says nothing of %q: %s", want, r.Stderr)
				}
			}
			if left := harness.Mounts(t); len(left) != 0 {
				t.Errorf("mounted all the same: %v", left)
				harness.Run(t, harness.Imgward(), "umount", h.Images).OK(t)
			}
		})
	}
}

// TestBadPolicy: a policy that cannot be read must not leave the images without protection. The view comes up with the
// default, and says so.
func TestBadPolicy(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	for name, text := range map[string]string{"missing.toml": "", "broken.toml": "mode = \n", "unknown.toml": "[sect]\nx = 1\n"} {
		path := filepath.Join(h.Dir, name)
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := harness.Run(t, harness.Imgward(), "mount", "--log", filepath.Join(h.Dir, name+".log"), "-o", "policy="+path, h.Images)
		r.OK(t)
		if !strings.Contains(r.Stderr, name) || !strings.Contains(r.Stderr, "default") {
			t.Errorf("%s: says nothing of it: %q", name, r.Stderr)
		}
		if status := harness.Run(t, harness.Imgward(), "status", h.Images).OK(t); !strings.Contains(status, name) {
			t.Errorf("%s: status says nothing of it:\n%s", name, status)
		}
		harness.Run(t, harness.Imgward(), "umount", h.Images).OK(t)
	}
}

// TestMountTwice: a view over a view would judge every operation twice, in the wrong place.
func TestMountTwice(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	v := h.Mount(t)
	harness.Run(t, harness.Imgward(), "mount", h.Images).Fails(t, "already a view")
	if n := len(harness.Mounts(t)); n != 1 {
		t.Errorf("%d mounts, want one", n)
	}
	v.End(t)
	h.Mount(t) // and again, once it is gone
}

// TestViewOfView: a second view whose backing is the first would judge every operation by the wrong process, its own.
func TestViewOfView(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	h.Mount(t)
	r := harness.Run(t, harness.Imgward(), "mount", "--backing", h.Images, h.Out)
	if r.Exit == 0 {
		harness.Run(t, harness.Imgward(), "umount", h.Out).OK(t)
	}
	r.Fails(t, "view")
}

// TestStaleMount: keeper and worker were killed; what is left is named, and can be replaced.
func TestStaleMount(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	v := h.Mount(t)
	v.KillAll(t)
	harness.Run(t, harness.Imgward(), "mount", h.Images).Fails(t, "umount")
	harness.Run(t, harness.Imgward(), "status", h.Images).Fails(t, h.Images)
	if r := harness.Run(t, harness.Imgward(), "umount", h.Images); r.Exit != 0 {
		harness.Run(t, "umount", "-l", h.Images).OK(t) // as the message said
	}
	h.Mount(t)
	if err := os.WriteFile(h.Image("new"), nil, 0o600); err != nil {
		t.Error(err)
	}
}

// TestFullDisk: what does not fit is ENOSPC, as natively, and nothing else suffers.
func TestFullDisk(t *testing.T) {
	h := harness.NewFiles(t)
	small := h.SmallDisk(t, 32*MiB)
	disk := h.Blank(t, filepath.Join(small, "vm.img"), 8*MiB)
	v := h.Mount(t)
	harness.Run(t, "dd", "if=/dev/zero", "of="+h.Image(small)+"/big", "bs=1M").Fails(t, "No space left on device")
	harness.Run(t, "fallocate", "-l", "8M", disk).Fails(t, "No space left on device")
	harness.Run(t, "rm", h.Image(small)+"/big").OK(t)
	harness.Until(t, "the blocks of the removed file are free", func() bool {
		var st unix.Statfs_t
		if err := unix.Statfs(h.Image(small), &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bavail)*st.Bsize > 16*MiB
	})
	harness.Run(t, "dd", "if=/dev/zero", "of="+disk, "bs=1M", "count=8", "conv=fsync").OK(t)
	v.End(t)
}

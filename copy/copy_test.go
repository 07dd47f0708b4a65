// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgward/copy/dest"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/move"
	"imgward/test/need"
)

func TestNewFile(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, 12*mib+12345)
	if err := os.Chmod(image, 0o640); err != nil {
		t.Fatal(err)
	}
	r := mustCopy(t, image, dst+"/copy", nil)
	testimg.Same(t, image, dst+"/copy")
	testimg.OnlyHolds(t, dst, "copy")
	if got := testimg.Stat(t, dst+"/copy"); got.Mode&0o7777 != 0o640 || got.Size != 12*mib+12345 {
		t.Errorf("mode %o, size %d", got.Mode, got.Size)
	}
	if sum := r.Written + r.Zeroes + r.Holes + r.Cloned; sum != r.Size {
		t.Errorf("%+v: the parts make %d bytes", r, sum)
	}
}

func TestSizes(t *testing.T) {
	src, dst := testimg.Dirs(t)
	for _, size := range []int64{0, 1, 511, 4096, 4097, mib - 1, mib, mib + 1, 3*mib + 4095} {
		name := time.Duration(size).String()
		image := testimg.New(t, src+"/"+name, uint64(size), size)
		mustCopy(t, image, dst+"/"+name, func(o *Options) { o.Verify = true })
		testimg.Same(t, image, dst+"/"+name)
		if got := testimg.Stat(t, dst+"/"+name).Size; got != size {
			t.Errorf("size %d became %d", size, got)
		}
	}
}

// TestExbibytes: an empty image of 7 EiB is no more to copy than one of 8 TiB.
func TestExbibytes(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "imgcp-test-") // of the file systems here only tmpfs has such files
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const size = 7 << 60
	testimg.Write(t, dir+"/image", "")
	if err := os.Truncate(dir+"/image", size); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // 7 × 2³⁰ pieces of 1 GiB take hours
	defer cancel()
	r, err := Copy(ctx, dir+"/image", dir+"/copy", Defaults())
	if err != nil || r.Holes != size {
		t.Errorf("%d bytes of holes, error %v", r.Holes, err)
	}
}

func TestExistingIsRefused(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, mib)
	testimg.Write(t, dst+"/vm-disk2.img", "the live database")
	_, err := tryCopy(image, dst+"/vm-disk2.img", nil)
	if !errors.Is(err, dest.ErrExists) || !strings.Contains(err.Error(), "next free name: "+dst+"/vm-disk3.img") {
		t.Errorf("error %v: want ErrExists and the next free name", err)
	}
	if testimg.Content(t, dst+"/vm-disk2.img") != "the live database" {
		t.Error("it was overwritten")
	}
	testimg.OnlyHolds(t, dst, "vm-disk2.img")
}

func TestOverwrite(t *testing.T) {
	need.Have(t, need.Root) // chown
	for _, c := range []struct {
		way      dest.Overwrite
		linkSees string
	}{{dest.Replace, "old contents"}, {dest.InPlace, "new contents"}} {
		src, dst := testimg.Dirs(t)
		testimg.Write(t, src+"/image", "new contents")
		testimg.Write(t, dst+"/copy", "old contents")
		if err := errors.Join(os.Link(dst+"/copy", dst+"/link"), os.Chmod(dst+"/copy", 0o604), os.Chown(dst+"/copy", 12, 34)); err != nil {
			t.Fatal(err)
		}
		mustCopy(t, src+"/image", dst+"/copy", func(o *Options) { o.Overwrite = c.way })
		if got := testimg.Content(t, dst+"/copy"); got != "new contents" {
			t.Errorf("%s: the copy holds %q", c.way, got)
		}
		if got := testimg.Content(t, dst+"/link"); got != c.linkSees {
			t.Errorf("%s: a hard link shows %q, want %q", c.way, got, c.linkSees)
		}
		if st := testimg.Stat(t, dst+"/copy"); st.Mode&0o777 != 0o604 || st.Uid != 12 || st.Gid != 34 {
			t.Errorf("%s: mode %o, owner %d:%d; those of the old file are kept", c.way, st.Mode, st.Uid, st.Gid)
		}
		testimg.OnlyHolds(t, dst, "copy", "link")
	}
}

func TestOverwriteThroughLink(t *testing.T) {
	src, dst := testimg.Dirs(t)
	testimg.Write(t, src+"/image", "new")
	testimg.Write(t, dst+"/real", "old")
	if err := os.Symlink("real", dst+"/link"); err != nil {
		t.Fatal(err)
	}
	mustCopy(t, src+"/image", dst+"/link", func(o *Options) { o.Overwrite = dest.Replace })
	if testimg.Content(t, dst+"/real") != "new" || testimg.Stat(t, dst+"/link").Mode&syscall.S_IFMT != syscall.S_IFLNK {
		t.Error("what the link points to is to be replaced, and not the link")
	}
}

func TestPlacesThatMakeNoSense(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, mib)
	if err := errors.Join(os.Symlink("nowhere", dst+"/dangling"), os.Link(image, dst+"/hard"), os.Symlink(image, dst+"/soft")); err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{
		dst + "/dangling":     "leads nowhere",
		dst + "/hard":         "the same image",
		dst + "/soft":         "the same image",
		image:                 "the same image",
		dst:                   "is a directory",
		dst + "/no/such":      "no such file",
		"/dev/mapper-vg-lv99": "no files in /dev",
	} {
		_, err := tryCopy(image, to, func(o *Options) { o.Overwrite = dest.Replace })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("to %s: error %v, want one with %q", to, err, want)
		}
	}
	for from, want := range map[string]string{dst: "is a directory", "/dev/zero": "has no end", dst + "/none": "no such file"} {
		_, err := tryCopy(from, dst+"/copy", nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("from %s: error %v, want one with %q", from, err, want)
		}
	}
	testimg.OnlyHolds(t, dst, "dangling", "hard", "soft")
	testimg.OnlyHolds(t, src, "image")
}

// during runs what in the middle of a copy, once.
func during(o *Options, what func()) {
	done := false
	o.Reflink = Never
	o.Explain = func(move.Step) {
		if !done {
			done = true
			what()
		}
	}
}

// twoParts is an image whose first step is explained before its last byte has been copied.
func twoParts(t *testing.T, path string) string {
	t.Helper()
	testimg.Dense(t, path, 2*mib)
	if err := os.Truncate(path, 40*mib); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(testimg.Noise(testimg.Random(1), 4*mib), 30*mib); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSourceWrittenMeanwhile(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := twoParts(t, src+"/image")
	_, err := tryCopy(image, dst+"/copy", func(o *Options) {
		during(o, func() {
			if err := os.Chtimes(image, time.Now(), time.Now().Add(time.Second)); err != nil {
				t.Error(err)
			}
		})
	})
	if err == nil || !strings.Contains(err.Error(), "torn") {
		t.Errorf("error %v, want one about a torn copy", err)
	}
	testimg.OnlyHolds(t, dst)
}

func TestSomebodyElseIsFaster(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := twoParts(t, src+"/image")
	_, err := tryCopy(image, dst+"/copy", func(o *Options) { during(o, func() { testimg.Write(t, dst+"/copy", "theirs") }) })
	if !errors.Is(err, dest.ErrExists) {
		t.Errorf("error %v, want ErrExists", err)
	}
	if testimg.Content(t, dst+"/copy") != "theirs" {
		t.Error("their file was overwritten")
	}
	testimg.OnlyHolds(t, dst, "copy")
}

func TestReplacedMeanwhile(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := twoParts(t, src+"/image")
	testimg.Write(t, dst+"/copy", "old")
	_, err := tryCopy(image, dst+"/copy", func(o *Options) {
		o.Overwrite = dest.Replace
		during(o, func() {
			if err := os.Remove(dst + "/copy"); err != nil {
				t.Error(err)
			}
			testimg.Write(t, dst+"/copy", "theirs")
		})
	})
	if err == nil || testimg.Content(t, dst+"/copy") != "theirs" {
		t.Errorf("error %v, contents %.10q: what somebody else put there stays", err, testimg.Content(t, dst+"/copy"))
	}
	testimg.OnlyHolds(t, dst, "copy")
}

func TestInterrupted(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := twoParts(t, src+"/image")
	ctx, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("a person pressed ^C")
	o := Defaults()
	during(&o, func() { cancel(reason) })
	if _, err := Copy(ctx, image, dst+"/copy", o); !errors.Is(err, reason) {
		t.Errorf("error %v, want the cause", err)
	}
	testimg.OnlyHolds(t, dst)
}

func TestWarnings(t *testing.T) {
	src, dst := testimg.Dirs(t)
	testimg.Write(t, src+"/empty", "")
	if err := os.WriteFile(src+"/zeroes", make([]byte, 2*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	testimg.Write(t, src+"/hole", "")
	half := append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 4096)...)
	copy(half[40:], []byte{0, 0, 0, 0, 0, 3, 0, 0}) // its L1 table is at 192 KiB
	if err := errors.Join(os.Truncate(src+"/hole", 5*mib), os.WriteFile(src+"/half", half, 0o600)); err != nil {
		t.Fatal(err)
	}
	testimg.Write(t, src+"/good", "good")
	for name, want := range map[string]string{
		"empty": "this image is empty", "zeroes": "only zeroes", "hole": "only zeroes", "half": "smaller than its own header says",
	} {
		var log testimg.Log
		mustCopy(t, src+"/"+name, dst+"/"+name, func(o *Options) { o.Log = log.Logger() })
		if !log.Has(want) {
			t.Errorf("%s: no warning with %q: %q", name, want, log.Lines)
		}
	}
	var log testimg.Log
	mustCopy(t, src+"/good", dst+"/good", func(o *Options) { o.Log = log.Logger() })
	if len(log.Lines) > 0 {
		t.Errorf("a good image: %q", log.Lines)
	}
}

// TestNeedsOtherFiles: a copy that cannot be used without others is not made silently.
func TestNeedsOtherFiles(t *testing.T) {
	src, dst := testimg.Dirs(t)
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", src+"/base.qcow2", "1M")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", src+"/overlay.qcow2")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+src+"/data.raw", src+"/outside.qcow2", "1M")
	testvol.Run(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", src+"/flat.vmdk", "1M")
	for image, needs := range map[string]string{
		"base.qcow2": "", "overlay.qcow2": src + "/base.qcow2", "outside.qcow2": src + "/data.raw", "flat.vmdk": src + "/flat-flat.vmdk",
	} {
		for _, alone := range []bool{false, true} {
			var log testimg.Log
			to := filepath.Join(dst, image)
			mustCopy(t, filepath.Join(src, image), to, func(o *Options) { o.Log, o.Alone = log.Logger(), alone })
			testimg.Remove(t, to)
			said := log.Has("needs other files") && log.Has(needs)
			if want := needs != "" && !alone; said != want {
				t.Errorf("%s, alone: %v: said: %v, want %v (%q)", image, alone, said, want, log.Lines)
			}
		}
	}
}

func TestPreallocate(t *testing.T) {
	src, dst := testimg.Dirs(t)
	testimg.Write(t, src+"/image", "")
	if err := os.Truncate(src+"/image", 4*mib); err != nil {
		t.Fatal(err)
	}
	mustCopy(t, src+"/image", dst+"/copy", func(o *Options) { o.Preallocate = true })
	if got := testimg.Stat(t, dst+"/copy").Blocks * 512; got < 4*mib {
		t.Errorf("%d bytes are allocated, want all", got)
	}
	testimg.Same(t, src+"/image", dst+"/copy")
}

func TestKeepZeroes(t *testing.T) {
	src, dst := testimg.Dirs(t)
	if err := os.WriteFile(src+"/image", make([]byte, 4*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	mustCopy(t, src+"/image", dst+"/copy", func(o *Options) { o.KeepZeroes = true; o.Reflink = Never })
	mustCopy(t, src+"/image", dst+"/sparse", func(o *Options) { o.Reflink = Never })
	kept, left := testimg.Stat(t, filepath.Join(dst, "copy")).Blocks*512, testimg.Stat(t, dst+"/sparse").Blocks*512
	if kept < 4*mib || left > 64*kib {
		t.Errorf("kept zeroes take %d bytes, left out ones %d", kept, left)
	}
}

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
)

func TestNewFile(t *testing.T) {
	src, dst := dirs(t)
	image := newImage(t, src+"/image", 1, 12*mib+12345)
	if err := os.Chmod(image, 0o640); err != nil {
		t.Fatal(err)
	}
	r := mustCopy(t, image, dst+"/copy", nil)
	sameBytes(t, image, dst+"/copy")
	onlyHolds(t, dst, "copy")
	if got := stat(t, dst+"/copy"); got.Mode&0o7777 != 0o640 || got.Size != 12*mib+12345 {
		t.Errorf("mode %o, size %d", got.Mode, got.Size)
	}
	if sum := r.Written + r.Zeroes + r.Holes + r.Cloned; sum != r.Size {
		t.Errorf("%+v: the parts make %d bytes", r, sum)
	}
}

func TestSizes(t *testing.T) {
	src, dst := dirs(t)
	for _, size := range []int64{0, 1, 511, 4096, 4097, mib - 1, mib, mib + 1, 3*mib + 4095} {
		name := time.Duration(size).String()
		image := newImage(t, src+"/"+name, uint64(size), size)
		mustCopy(t, image, dst+"/"+name, func(o *Options) { o.Verify = true })
		sameBytes(t, image, dst+"/"+name)
		if got := stat(t, dst+"/"+name).Size; got != size {
			t.Errorf("size %d became %d", size, got)
		}
	}
}

func TestExistingIsRefused(t *testing.T) {
	src, dst := dirs(t)
	image := newImage(t, src+"/image", 1, mib)
	write(t, dst+"/vm-disk2.img", "the live database")
	_, err := tryCopy(image, dst+"/vm-disk2.img", nil)
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "next free name: "+dst+"/vm-disk3.img") {
		t.Errorf("error %v: want ErrExists and the next free name", err)
	}
	if content(t, dst+"/vm-disk2.img") != "the live database" {
		t.Error("it was overwritten")
	}
	onlyHolds(t, dst, "vm-disk2.img")
}

func TestOverwrite(t *testing.T) {
	for _, c := range []struct {
		way      Overwrite
		linkSees string
	}{{Replace, "old contents"}, {InPlace, "new contents"}} {
		src, dst := dirs(t)
		write(t, src+"/image", "new contents")
		write(t, dst+"/copy", "old contents")
		if err := errors.Join(os.Link(dst+"/copy", dst+"/link"), os.Chmod(dst+"/copy", 0o604), os.Chown(dst+"/copy", 12, 34)); err != nil {
			t.Fatal(err)
		}
		mustCopy(t, src+"/image", dst+"/copy", func(o *Options) { o.Overwrite = c.way })
		if got := content(t, dst+"/copy"); got != "new contents" {
			t.Errorf("%s: the copy holds %q", c.way, got)
		}
		if got := content(t, dst+"/link"); got != c.linkSees {
			t.Errorf("%s: a hard link shows %q, want %q", c.way, got, c.linkSees)
		}
		if st := stat(t, dst+"/copy"); st.Mode&0o777 != 0o604 || st.Uid != 12 || st.Gid != 34 {
			t.Errorf("%s: mode %o, owner %d:%d; those of the old file are kept", c.way, st.Mode, st.Uid, st.Gid)
		}
		onlyHolds(t, dst, "copy", "link")
	}
}

func TestOverwriteThroughLink(t *testing.T) {
	src, dst := dirs(t)
	write(t, src+"/image", "new")
	write(t, dst+"/real", "old")
	if err := os.Symlink("real", dst+"/link"); err != nil {
		t.Fatal(err)
	}
	mustCopy(t, src+"/image", dst+"/link", func(o *Options) { o.Overwrite = Replace })
	if content(t, dst+"/real") != "new" || stat(t, dst+"/link").Mode&syscall.S_IFMT != syscall.S_IFLNK {
		t.Error("what the link points to is to be replaced, and not the link")
	}
}

func TestPlacesThatMakeNoSense(t *testing.T) {
	src, dst := dirs(t)
	image := newImage(t, src+"/image", 1, mib)
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
		_, err := tryCopy(image, to, func(o *Options) { o.Overwrite = Replace })
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
	onlyHolds(t, dst, "dangling", "hard", "soft")
	onlyHolds(t, src, "image")
}

// during runs what in the middle of a copy, once.
func during(o *Options, what func()) {
	done := false
	o.Reflink = Never
	o.Explain = func(Step) {
		if !done {
			done = true
			what()
		}
	}
}

// twoParts is an image whose first step is explained before its last byte has been copied.
func twoParts(t *testing.T, path string) string {
	t.Helper()
	dense(t, path, 2*mib)
	if err := os.Truncate(path, 40*mib); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(noise(random(1), 4*mib), 30*mib); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSourceWrittenMeanwhile(t *testing.T) {
	src, dst := dirs(t)
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
	onlyHolds(t, dst)
}

func TestSomebodyElseIsFaster(t *testing.T) {
	src, dst := dirs(t)
	image := twoParts(t, src+"/image")
	_, err := tryCopy(image, dst+"/copy", func(o *Options) { during(o, func() { write(t, dst+"/copy", "theirs") }) })
	if !errors.Is(err, ErrExists) {
		t.Errorf("error %v, want ErrExists", err)
	}
	if content(t, dst+"/copy") != "theirs" {
		t.Error("their file was overwritten")
	}
	onlyHolds(t, dst, "copy")
}

func TestReplacedMeanwhile(t *testing.T) {
	src, dst := dirs(t)
	image := twoParts(t, src+"/image")
	write(t, dst+"/copy", "old")
	_, err := tryCopy(image, dst+"/copy", func(o *Options) {
		o.Overwrite = Replace
		during(o, func() {
			if err := os.Remove(dst + "/copy"); err != nil {
				t.Error(err)
			}
			write(t, dst+"/copy", "theirs")
		})
	})
	if err == nil || content(t, dst+"/copy") != "theirs" {
		t.Errorf("error %v, contents %.10q: what somebody else put there stays", err, content(t, dst+"/copy"))
	}
	onlyHolds(t, dst, "copy")
}

func TestInterrupted(t *testing.T) {
	src, dst := dirs(t)
	image := twoParts(t, src+"/image")
	ctx, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("a person pressed ^C")
	o := Defaults()
	during(&o, func() { cancel(reason) })
	if _, err := Copy(ctx, image, dst+"/copy", o); !errors.Is(err, reason) {
		t.Errorf("error %v, want the cause", err)
	}
	onlyHolds(t, dst)
}

func TestWarnings(t *testing.T) {
	src, dst := dirs(t)
	write(t, src+"/empty", "")
	if err := os.WriteFile(src+"/zeroes", make([]byte, 2*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, src+"/hole", "")
	half := append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 4096)...)
	copy(half[40:], []byte{0, 0, 0, 0, 0, 3, 0, 0}) // its L1 table is at 192 KiB
	if err := errors.Join(os.Truncate(src+"/hole", 5*mib), os.WriteFile(src+"/half", half, 0o600)); err != nil {
		t.Fatal(err)
	}
	write(t, src+"/good", "good")
	for name, want := range map[string]string{
		"empty": "this image is empty", "zeroes": "only zeroes", "hole": "only zeroes", "half": "smaller than its own header says",
	} {
		var log journalLog
		mustCopy(t, src+"/"+name, dst+"/"+name, func(o *Options) { o.Log = log.logger() })
		if !log.has(want) {
			t.Errorf("%s: no warning with %q: %q", name, want, log.lines)
		}
	}
	var log journalLog
	mustCopy(t, src+"/good", dst+"/good", func(o *Options) { o.Log = log.logger() })
	if len(log.lines) > 0 {
		t.Errorf("a good image: %q", log.lines)
	}
}

func TestPreallocate(t *testing.T) {
	src, dst := dirs(t)
	write(t, src+"/image", "")
	if err := os.Truncate(src+"/image", 4*mib); err != nil {
		t.Fatal(err)
	}
	mustCopy(t, src+"/image", dst+"/copy", func(o *Options) { o.Preallocate = true })
	if got := stat(t, dst+"/copy").Blocks * 512; got < 4*mib {
		t.Errorf("%d bytes are allocated, want all", got)
	}
	sameBytes(t, src+"/image", dst+"/copy")
}

func TestKeepZeroes(t *testing.T) {
	src, dst := dirs(t)
	if err := os.WriteFile(src+"/image", make([]byte, 4*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	mustCopy(t, src+"/image", dst+"/copy", func(o *Options) { o.KeepZeroes = true; o.Reflink = Never })
	mustCopy(t, src+"/image", dst+"/sparse", func(o *Options) { o.Reflink = Never })
	kept, left := stat(t, filepath.Join(dst, "copy")).Blocks*512, stat(t, dst+"/sparse").Blocks*512
	if kept < 4*mib || left > 64*kib {
		t.Errorf("kept zeroes take %d bytes, left out ones %d", kept, left)
	}
}

// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/copy/dest"
	"imgward/copy/internal/testfault"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/move"
)

// failFrom makes the n-th operation of a kind and all after it fail. (A single failed write would come back as a short
// one: the kernel cuts ours into requests of 128 KiB.)
func failFrom(op string, n int, errno syscall.Errno) func(string, int) syscall.Errno {
	return func(o string, i int) syscall.Errno {
		if o == op && i >= n {
			return errno
		}
		return 0
	}
}

// TestEveryFault makes operations of each kind fail from the first, the second, … on, until a copy gets through without
// meeting the fault. After each one there is either the whole image or nothing.
func TestEveryFault(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	var f testfault.Faults
	mnt := testfault.Mount(t, dst, &f)
	image := testimg.New(t, src+"/image", 3, 8*mib)
	addNoise(t, image, 5*mib) // long enough to have its blocks reserved
	for _, way := range []struct {
		name   string
		change func(*Options)
	}{
		{"new", nil},
		{"replace", func(o *Options) { o.Overwrite = dest.Replace }},
		{"verify", func(o *Options) { o.Verify = true }},
		{"resume", func(o *Options) { o.Resume, o.Checkpoint = true, mib }},
	} {
		for op, errno := range map[string]syscall.Errno{
			"create": unix.EACCES, "write": unix.EIO, "fsync": unix.EIO, "fsync-dir": unix.EIO, "rename": unix.EIO,
			"setattr": unix.EIO, "fallocate": unix.EIO, "read": unix.EIO,
		} {
			t.Run(way.name+" "+op, func(t *testing.T) { everyNth(t, &f, op, errno, image, mnt, dst, way.change) })
		}
	}
}

func everyNth(t *testing.T, f *testfault.Faults, op string, errno syscall.Errno, image, mnt, dst string, change func(*Options)) {
	for n := 1; ; n++ {
		f.Again(nil)
		replacing := false
		if o := Defaults(); change != nil {
			change(&o)
			if replacing = o.Overwrite == dest.Replace; replacing {
				testimg.Write(t, dst+"/copy", "the old one")
			}
		}
		f.Again(failFrom(op, n, errno))
		_, err := tryCopy(image, mnt+"/copy", change)
		met := f.Count(op) >= n
		f.Again(nil)
		switch {
		case err == nil:
			testimg.Same(t, image, dst+"/copy")
		case replacing && op != "fsync-dir": // which comes after the rename
			if got := testimg.Content(t, dst+"/copy"); got != "the old one" {
				t.Fatalf("%s %d: %v, and the old image is no longer there", op, n, err)
			}
		case Exists(dst+"/copy") && !replacing:
			t.Fatalf("%s %d: %v, and there is a file under the final name", op, n, err)
		}
		clean(t, dst, err, op, n)
		if !met {
			if err != nil || n == 1 && op != "read" {
				t.Fatalf("%s %d did not happen; error %v", op, n, err)
			}
			return
		}
	}
}

// clean removes what is there and fails if that is more than the image and what may be resumed.
func clean(t *testing.T, dst string, err error, op string, n int) {
	t.Helper()
	entries, readErr := os.ReadDir(dst)
	if readErr != nil {
		t.Fatal(readErr)
	}
	for _, e := range entries {
		resumable := strings.HasSuffix(e.Name(), ".imgcp-partial") || strings.Contains(e.Name(), ".imgcp-state")
		if e.Name() != "copy" && !(resumable && err != nil) {
			t.Errorf("%s %d (%v) left %s behind", op, n, err, e.Name())
		}
		testimg.Remove(t, dst+"/"+e.Name())
	}
}

func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestShortReadsAndWrites(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	var f testfault.Faults
	f.Short.Store(true)
	to := testfault.Mount(t, dst, &f)
	image := testimg.New(t, src+"/image", 4, 5*mib+100)
	mustCopy(t, image, to+"/copy", nil)
	mustCopy(t, to+"/copy", src+"/back", func(o *Options) { o.Verify = true })
	testimg.Same(t, image, src+"/back")
}

// TestSubmittedWrites: what goes to a FUSE file system by io_submit is as whole, and fails as loudly.
func TestSubmittedWrites(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	var f testfault.Faults
	mnt := testfault.Mount(t, dst, &f)
	image := testimg.Dense(t, src+"/image", move.SubmitAfter+8*mib)
	f.Short.Store(true)
	if r := mustCopy(t, image, mnt+"/copy", nil); r.Method != move.MethodDirect {
		t.Errorf("copied by %s: nothing was submitted", r.Method)
	}
	testimg.Same(t, image, dst+"/copy")
	testimg.Remove(t, dst+"/copy")
	f.Short.Store(false)
	f.Again(nil)
	mustCopy(t, testimg.Dense(t, src+"/small", 4*mib), mnt+"/copy", nil)
	perMiB := f.Count("write") / 4
	testimg.Remove(t, dst+"/copy")
	for _, errno := range []syscall.Errno{unix.EIO, unix.ENOSPC} {
		f.Again(failFrom("write", perMiB*(move.SubmitAfter/mib+4), errno))
		if _, err := tryCopy(image, mnt+"/copy", nil); !errors.Is(err, errno) {
			t.Errorf("error %v, want %v", err, errno)
		}
		testimg.OnlyHolds(t, dst)
	}
}

func TestNoSpaceMeanwhile(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	f := testfault.Faults{}
	mnt := testfault.Mount(t, dst, &f)
	image := testimg.Dense(t, src+"/image", 5*mib)
	for _, errno := range []syscall.Errno{unix.ENOSPC, unix.EDQUOT} {
		f.Again(failFrom("write", 3, errno))
		if _, err := tryCopy(image, mnt+"/copy", nil); !errors.Is(err, move.ErrNoSpace) {
			t.Errorf("%v: error %v, want ErrNoSpace", errno, err)
		}
		testimg.OnlyHolds(t, dst)
	}
}

// TestBadSectors: every read that covers bytes 1 MiB to 1 MiB + 8 KiB fails.
func TestBadSectors(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	image := testimg.Dense(t, src+"/image", 3*mib)
	var log testimg.Log
	for _, c := range []struct {
		how   OnError
		heals int // the read after which the medium works; 0: never
		err   error
		bad   int64
	}{
		{Stop, 0, unix.EIO, 0},
		{Zero, 0, ErrIncomplete, 8 * kib},
		{Retry, 0, ErrIncomplete, 8 * kib},
		{Retry, 5, nil, 0},
	} {
		t.Run(fmt.Sprint(c.how, c.heals), func(t *testing.T) {
			mnt := testfault.MountBad(t, src, mib, 8*kib, c.heals)
			log.Lines = nil
			r, err := tryCopy(mnt+"/image", dst+"/copy", func(o *Options) {
				o.OnError, o.Map, o.Verify, o.Log = c.how, dst+"/map", true, log.Logger()
			})
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if c.how == Stop {
				testimg.OnlyHolds(t, dst)
				return
			}
			defer testimg.Remove(t, dst+"/copy")
			want := []byte(testimg.Content(t, image))
			clear(want[mib : mib+c.bad])
			if testimg.Content(t, dst+"/copy") != string(want) {
				t.Error("the copy is not the image with zeroes where it cannot be read")
			}
			if r.Missing != c.bad {
				t.Errorf("%d bytes missing, want %d", r.Missing, c.bad)
			}
			if c.bad == 0 {
				testimg.OnlyHolds(t, dst, "copy")
				return
			}
			defer testimg.Remove(t, dst+"/map")
			if n := len(log.Lines); n != 2 || !log.Has("offset=1048576 bytes=8192") {
				t.Errorf("one bad part of two blocks is %d lines, want the first error and the part:\n%s", n, log.Lines)
			}
			if line := "0x00100000  0x00002000  -"; !strings.Contains(testimg.Content(t, dst+"/map"), line) {
				t.Errorf("no line %q in the map:\n%s", line, testimg.Content(t, dst+"/map"))
			}
		})
	}
}

// addNoise makes the first n bytes of a file data.
func addNoise(t *testing.T, path string, n int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(testimg.Noise(testimg.Random(4), n), 0); err != nil {
		t.Fatal(err)
	}
}

// TestErrorAtClose: a server may tell what became of writes at close(2) only, and without fsync that is the last chance.
func TestErrorAtClose(t *testing.T) {
	testvol.Root(t)
	for _, errno := range []syscall.Errno{unix.EDQUOT, unix.EIO} {
		for _, way := range []dest.Overwrite{dest.Refuse, dest.InPlace} {
			src, dst := testimg.Dirs(t)
			var f testfault.Faults
			mnt := testfault.Mount(t, dst, &f)
			image := testimg.Dense(t, src+"/image", mib)
			if way == dest.InPlace {
				testimg.Write(t, dst+"/copy", "old")
			}
			f.Again(failFrom("flush", 1, errno))
			_, err := tryCopy(image, mnt+"/copy", func(o *Options) { o.Sync, o.Overwrite = false, way })
			if !errors.Is(err, errno) {
				t.Errorf("%v, overwrite=%q: error %v", errno, way, err)
			}
			if way == dest.Refuse {
				testimg.OnlyHolds(t, dst)
			}
		}
	}
}

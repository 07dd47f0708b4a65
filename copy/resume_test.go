// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"imgward/copy/checkpoint"
	"imgward/copy/dest"
	"imgward/copy/digest"
	"imgward/copy/internal/testfault"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/move"
	"imgward/test/need"
)

const resumeSize = 24 * mib

var errStopped = errors.New("stopped by the test")

// interrupted copies until about half of the image is there.
func interrupted(t *testing.T, from, to string, change func(*Options)) {
	t.Helper()
	interruptedAt(t, from, to, resumeSize/2, change)
}

func interruptedAt(t *testing.T, from, to string, at int64, change func(*Options)) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	o := resuming()
	if change != nil {
		change(&o)
	}
	o.Requests = 2
	o.Explain = func(s move.Step) {
		if s.Off > at {
			cancel(errStopped)
		}
	}
	if _, err := Copy(ctx, from, to, o); !errors.Is(err, errStopped) {
		t.Fatalf("interrupted: error %v", err)
	}
}

func resuming() Options {
	o := Defaults()
	o.Resume, o.Reflink, o.Checkpoint = true, Never, 2*mib
	return o
}

func resumed(t *testing.T, from, to string, change func(*Options)) Result {
	t.Helper()
	o := resuming()
	if change != nil {
		change(&o)
	}
	r, err := Copy(context.Background(), from, to, o)
	if err != nil {
		t.Fatalf("resumed: %v", err)
	}
	testimg.Same(t, from, to)
	return r
}

func TestResume(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 11, resumeSize)
	interrupted(t, image, dst+"/copy", nil)
	testimg.OnlyHolds(t, dst, ".copy.imgcp-partial", ".copy.imgcp-state")
	r := resumed(t, image, dst+"/copy", func(o *Options) { o.Verify, o.Manifest = true, src+"/manifest" })
	// What was under way when it was interrupted is finished: on a fast file system, such as tmpfs, all of the rest.
	if r.Resumed < resumeSize/4 {
		t.Errorf("%d of %d bytes were not copied again", r.Resumed, resumeSize)
	}
	if sum := r.Resumed + r.Written + r.Zeroes + r.Holes; sum != resumeSize {
		t.Errorf("%+v: the parts make %d bytes", r, sum)
	}
	testimg.OnlyHolds(t, dst, "copy")
	if _, err := Check(context.Background(), dst+"/copy", src+"/manifest", Defaults()); err != nil {
		t.Error(err)
	}
}

// TestResumeLongNames: of two images whose names are too long for a hidden name of their own, and begin alike, each goes on
// with its own copy.
func TestResumeLongNames(t *testing.T) {
	src, dst := testimg.Dirs(t)
	long := strings.Repeat("a", 250)
	for i, end := range []string{"1", "2"} {
		interrupted(t, testimg.New(t, src+"/image"+end, uint64(11+i), resumeSize), dst+"/"+long+end, nil)
	}
	for _, end := range []string{"1", "2"} {
		if r := resumed(t, src+"/image"+end, dst+"/"+long+end, nil); r.Resumed == 0 {
			t.Errorf("%s: everything was copied again", end)
		}
	}
	testimg.OnlyHolds(t, dst, long+"1", long+"2")
}

func TestResumeReplaceAndInPlace(t *testing.T) {
	for _, way := range []dest.Overwrite{dest.Replace, dest.InPlace} {
		src, dst := testimg.Dirs(t)
		image := testimg.New(t, src+"/image", 12, resumeSize)
		testimg.Write(t, dst+"/copy", "the old one")
		overwrite := func(o *Options) { o.Overwrite = way }
		interrupted(t, image, dst+"/copy", overwrite)
		if r := resumed(t, image, dst+"/copy", overwrite); r.Resumed == 0 {
			t.Errorf("%s: everything was copied again", way)
		}
		testimg.OnlyHolds(t, dst, "copy")
	}
}

func TestResumeDevice(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 13, resumeSize)
	dev := testvol.Device(t, resumeSize)
	states := filepath.Join(t.TempDir(), "states")
	options := func(o *Options) { o.Overwrite, o.StateDir = dest.Replace, states }
	interrupted(t, image, dev, options)
	if r := resumed(t, image, dev, options); r.Resumed == 0 {
		t.Error("everything was copied again")
	}
	testimg.OnlyHolds(t, states)
}

// TestResumeComparesDevices: a device has no times. Where it is not certain that it holds what it held, samples are not enough:
// of an image of many GiB they hardly ever meet what a machine has written.
func TestResumeComparesDevices(t *testing.T) {
	const size = 2*digest.Block + 16*mib
	otherBoot := func(t *testing.T, state string, change func(*checkpoint.State)) {
		t.Helper()
		s, err := checkpoint.Load(state)
		if err != nil {
			t.Fatal(err)
		}
		change(&s)
		if err := s.Save(state); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, from, to, state string)
		keeps  bool // some; else all
	}{
		"the file below the source was written to": {func(t *testing.T, from, _, _ string) {
			below := testvol.Run(t, "losetup", "-n", "-O", "BACK-FILE", from)
			poke(t, strings.TrimSpace(below), 70*mib)
		}, true},
		"nothing happened":          {func(*testing.T, string, string, string) {}, false},
		"the source was written to": {func(t *testing.T, from, _, _ string) { poke(t, from, 70*mib) }, true},
		"the source was discarded": {func(t *testing.T, from, _, _ string) {
			testvol.Run(t, "blkdiscard", "-o", "73400320", "-l", "4096", from)
		}, true},
		"the destination is another one": {func(t *testing.T, _, to, state string) {
			poke(t, to, 70*mib)
			otherBoot(t, state, func(s *checkpoint.State) { s.Target.Disk += "0" })
		}, true},
		"the host has been booted": {func(t *testing.T, _, _, state string) {
			otherBoot(t, state, func(s *checkpoint.State) { s.Source.Disk, s.Target.Disk = "a", "a" })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			src, _ := testimg.Dirs(t)
			image := testimg.New(t, src+"/image", 16, size)
			addNoise(t, image, 71*mib)
			from, to := testvol.Attach(t, image), testvol.Device(t, size)
			states := filepath.Join(t.TempDir(), "states")
			options := func(o *Options) { o.Overwrite, o.StateDir, o.Checkpoint = dest.Replace, states, 32*mib }
			interruptedAt(t, from, to, 100*mib, options)
			state, _ := filepath.Glob(states + "/*")
			c.change(t, from, to, state[0])
			r := resumed(t, from, to, options)
			if c.keeps && r.Resumed != digest.Block || !c.keeps && r.Resumed < 96*mib {
				t.Errorf("%d MiB were kept", r.Resumed/mib)
			}
		})
	}
}

// TestResumeNoticesChanges: whatever has changed meanwhile, the copy is of the image as it is now.
func TestResumeNoticesChanges(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, image, partial, state string){
		"source written to": func(t *testing.T, image, _, _ string) { poke(t, image, 5*mib) },
		"source written to behind our back": func(t *testing.T, image, _, _ string) {
			st := testimg.Stat(t, image)
			poke(t, image, 100)
			if err := os.Chtimes(image, time.Time{}, time.Unix(st.Mtim.Unix())); err != nil {
				t.Fatal(err)
			}
		},
		"source replaced": func(t *testing.T, image, _, _ string) {
			testimg.Remove(t, image)
			testimg.New(t, image, 15, resumeSize)
		},
		"copy damaged": func(t *testing.T, _, partial, _ string) { poke(t, partial, 7) },
		"copy replaced": func(t *testing.T, _, partial, _ string) {
			testimg.Remove(t, partial)
			testimg.Write(t, partial, "something else")
		},
		"copy gone":     func(t *testing.T, _, partial, _ string) { testimg.Remove(t, partial) },
		"state damaged": func(t *testing.T, _, _, state string) { testimg.Write(t, state, `{"type":"imgcp-state","version":1`) },
		"state gone":    func(t *testing.T, _, _, state string) { testimg.Remove(t, state) },
		"source grew": func(t *testing.T, image, _, _ string) {
			if err := os.Truncate(image, resumeSize+mib); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := testimg.Dirs(t)
			image := testimg.New(t, src+"/image", 14, resumeSize)
			addNoise(t, image, mib) // not a hole where it is poked
			interrupted(t, image, dst+"/copy", nil)
			change(t, image, dst+"/.copy.imgcp-partial", dst+"/.copy.imgcp-state")
			if r := resumed(t, image, dst+"/copy", nil); r.Resumed != 0 {
				t.Errorf("%d bytes were kept", r.Resumed)
			}
			testimg.OnlyHolds(t, dst, "copy")
		})
	}
}

// TestResumeForgetsWhatMayBeLost: a flush that fails has dropped the pages that it could not write, and the kernel says so
// once; a second flush succeeds and proves nothing. What was copied since the last good checkpoint is copied again.
func TestResumeForgetsWhatMayBeLost(t *testing.T) {
	testvol.Root(t)
	for _, c := range []struct{ fails, size int64 }{{2, 0}, {4, 5 * mib}} { // the others are the state's own
		src, dst := testimg.Dirs(t)
		image := testimg.Dense(t, src+"/image", resumeSize)
		var f testfault.Faults
		mnt := testfault.Mount(t, dst, &f)
		f.Again(func(op string, n int) syscall.Errno {
			if op == "fsync" && int64(n) == c.fails {
				return unix.EIO
			}
			return 0
		})
		_, err := tryCopy(image, mnt+"/copy", func(o *Options) {
			o.Resume, o.Reflink, o.Checkpoint, o.Requests = true, Never, 4*mib, 1
		})
		if !errors.Is(err, unix.EIO) {
			t.Fatalf("error %v, want EIO", err)
		}
		s, err := checkpoint.Load(dst + "/.copy.imgcp-state")
		switch {
		case c.size == 0 && !errors.Is(err, os.ErrNotExist):
			t.Errorf("%d bytes count as durable, though none ever was (%v)", s.Durable, err)
		case c.size > 0 && (err != nil || s.Durable == 0 || s.Durable > c.size):
			t.Errorf("%d bytes count as durable, want those before the failed flush (%v)", s.Durable, err)
		}
		f.Again(nil)
		if r := resumed(t, image, mnt+"/copy", nil); r.Resumed > c.size {
			t.Errorf("%d bytes were not copied again", r.Resumed)
		}
	}
}

// TestIncompleteIsNotResumed: a copy that was published without what could not be read is as good as it gets.
func TestIncompleteIsNotResumed(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	image := testimg.Dense(t, src+"/image", resumeSize)
	mnt := testfault.MountBad(t, src, mib, 8*kib, 0)
	var log testimg.Log
	_, err := tryCopy(mnt+"/image", dst+"/copy", func(o *Options) {
		*o = resuming()
		o.OnError, o.Map, o.Log = Zero, dst+"/map", log.Logger()
	})
	if !errors.Is(err, ErrIncomplete) || log.Has("to resume") {
		t.Errorf("error %v; %q", err, log.Lines)
	}
	testimg.OnlyHolds(t, dst, "copy", "map")
	if got, want := testimg.Stat(t, dst+"/copy").Size, testimg.Stat(t, image).Size; got != want {
		t.Errorf("the copy has %d bytes of %d", got, want)
	}
}

// TestResumeAfterKill kills a process that copies, as a crash or the out-of-memory killer would.
func TestResumeAfterKill(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.Dense(t, src+"/image", resumeSize)
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperCopySlowly$")
	cmd.Env = append(os.Environ(), "IMGCP_TEST_FROM="+image, "IMGCP_TEST_TO="+dst+"/copy")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	state := dst + "/.copy.imgcp-state"
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if s, err := checkpoint.Load(state); err == nil && s.Durable > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Error("no checkpoint was ever saved")
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if Exists(dst + "/copy") {
		t.Error("half an image under the final name")
	}
	if r := resumed(t, image, dst+"/copy", nil); r.Resumed < 2*mib {
		t.Errorf("%d bytes were kept of what was durable", r.Resumed)
	}
	testimg.OnlyHolds(t, dst, "copy")
}

// TestHelperCopySlowly is the process that is killed.
func TestHelperCopySlowly(t *testing.T) {
	from, to := os.Getenv("IMGCP_TEST_FROM"), os.Getenv("IMGCP_TEST_TO")
	if from == "" {
		return
	}
	o := resuming()
	o.Limit = rate.NewLimiter(4*mib, mib)
	_, err := Copy(context.Background(), from, to, o)
	t.Fatalf("nobody killed this copy: %v", err)
}

// TestFlushIsNoWrite: a device that was only flushed, as imgcp does before it asks, holds what it held.
func TestFlushIsNoWrite(t *testing.T) {
	dev, err := os.OpenFile(testvol.Device(t, mib), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	identify := func() checkpoint.Identity {
		var st unix.Stat_t
		if err := errors.Join(dev.Sync(), unix.Fstat(int(dev.Fd()), &st)); err != nil {
			t.Fatal(err)
		}
		return checkpoint.Identify(dev.Name(), &st, mib)
	}
	before := identify()
	if before.Disk == "" {
		need.Kernel(t, "diskseq (Linux 5.15)")
	}
	if !before.Unwritten(identify()) {
		t.Error("a flush counts as a write")
	}
	if _, err := dev.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if before.Unwritten(identify()) {
		t.Error("a write does not count")
	}
}

// TestPartialOfSomebodyElse: in a directory that others may write to, the hidden name may lead to a file of their choice.
func TestPartialOfSomebodyElse(t *testing.T) {
	for name, plant := range map[string]func(partial, victim string) error{
		"hard link": func(partial, victim string) error { return os.Link(victim, partial) },
		"symlink":   func(partial, victim string) error { return os.Symlink(victim, partial) },
		"pipe":      func(partial, _ string) error { return unix.Mkfifo(partial, 0o600) },
		"other's": func(partial, _ string) error {
			return errors.Join(os.WriteFile(partial, nil, 0o666), os.Chown(partial, 1234, 1234))
		},
	} {
		t.Run(name, func(t *testing.T) {
			testvol.Root(t)
			src, dst := testimg.Dirs(t)
			image := testimg.New(t, src+"/image", 1, mib)
			victim := testimg.Write(t, src+"/victim", "something that matters")
			if err := plant(dst+"/.copy.imgcp-partial", victim); err != nil {
				t.Fatal(err)
			}
			if _, err := tryCopy(image, dst+"/copy", func(o *Options) { o.Resume = true }); err == nil {
				t.Error("it was written to")
			}
			if testimg.Content(t, victim) != "something that matters" {
				t.Error("the victim was changed")
			}
			if Exists(dst + "/copy") {
				t.Error("it took the final name")
			}
		})
	}
}

// TestStateOfOthers: what has the name of the state and is not this version's, or no file, is left as it is, and hangs
// nobody.
func TestStateOfOthers(t *testing.T) {
	for what, put := range map[string]func(path string) error{
		"another version": func(path string) error {
			return os.WriteFile(path, []byte(`{"type":"imgcp-state","version":99}`), 0o600)
		},
		"a FIFO": func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link": func(path string) error { return os.Symlink("elsewhere", path) },
	} {
		t.Run(what, func(t *testing.T) {
			src, dst := testimg.Dirs(t)
			image := testimg.New(t, src+"/image", 1, mib)
			const state = ".copy.imgcp-state"
			if err := put(dst + "/" + state); err != nil {
				t.Fatal(err)
			}
			var was, is unix.Stat_t
			_ = unix.Lstat(dst+"/"+state, &was)
			_, err := tryCopy(image, dst+"/copy", func(o *Options) { o.Resume = true })
			if !errors.Is(err, checkpoint.ErrVersion) && !errors.Is(err, checkpoint.ErrNoFile) {
				t.Errorf("error %v", err)
			}
			if unix.Lstat(dst+"/"+state, &is) != nil || is.Ino != was.Ino || is.Size != was.Size {
				t.Error("it was replaced")
			}
			testimg.OnlyHolds(t, dst, state)
		})
	}
}

// TestResumeOntoStaleBytes: what a killed run wrote beyond its last checkpoint is unknown. The source is a device, whose times
// say nothing, and has become zeroes there.
func TestResumeOntoStaleBytes(t *testing.T) {
	for name, overwrite := range map[string]dest.Overwrite{
		"new": dest.Refuse, "replace": dest.Replace, "in-place": dest.InPlace, "device": dest.Replace,
	} {
		for _, kind := range testvol.Kinds {
			src, dst := testimg.Dirs(t)
			from := testvol.Attach(t, testimg.New(t, src+"/image", 17, resumeSize))
			to := testvol.Mount(t, kind, testvol.MinSize) + "/copy"
			switch {
			case name == "device" && kind != testvol.Kinds[0]:
				continue
			case name == "device":
				to = testvol.Device(t, resumeSize)
			case overwrite != dest.Refuse:
				testimg.Dense(t, to, resumeSize/2)
			}
			change := func(o *Options) { o.Overwrite, o.StateDir = overwrite, dst }
			interrupted(t, from, to, change)
			states, _ := filepath.Glob(filepath.Dir(to) + "/.copy.imgcp-state")
			if name == "device" {
				states, _ = filepath.Glob(dst + "/*.state")
			}
			if len(states) != 1 {
				t.Fatalf("%s on %s: states %q", name, kind, states)
			}
			state, err := checkpoint.Load(states[0])
			if err != nil {
				t.Fatal(err)
			}
			state.Durable = 4 * mib // as a kill leaves it, who saves none at the end
			if err := state.Save(states[0]); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(from, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt(make([]byte, resumeSize-4*mib), 4*mib)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				t.Fatal(err)
			}
			if r := resumed(t, from, to, change); r.Resumed != 4*mib {
				t.Errorf("%s on %s: went on from %d", name, kind, r.Resumed)
			}
		}
	}
}

// TestResumeWithoutRoom: what an earlier copy left is there also after a second one that found the disk full.
func TestResumeWithoutRoom(t *testing.T) {
	dst := testvol.Mount(t, "ext4", 64*mib)
	image := testimg.New(t, t.TempDir()+"/image", 14, resumeSize)
	interrupted(t, image, dst+"/copy", nil)
	testimg.Dense(t, dst+"/others", int64(free(t, dst))-2*mib)
	if _, err := tryCopy(image, dst+"/copy", func(o *Options) {
		*o = resuming()
		o.Preallocate = true // refused before a byte is written
	}); !errors.Is(err, move.ErrNoSpace) {
		t.Fatalf("onto a full disk: error %v", err)
	}
	testimg.Remove(t, dst+"/others")
	if r := resumed(t, image, dst+"/copy", nil); r.Resumed == 0 {
		t.Error("everything was copied again")
	}
}

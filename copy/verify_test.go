// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"imgward/copy/dest"
	"imgward/copy/digest"
	"imgward/copy/internal/testfault"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/move"
	"imgward/copy/source"
)

// TestVerifyRepairs flips bits on their way to the medium: once, which is repaired, and always, which is not.
func TestVerifyRepairs(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 6, 9*mib)
	for _, c := range []struct {
		name     string
		corrupts func(n int) bool
		err      error
		repaired int
	}{
		{"never", func(int) bool { return false }, nil, 0},
		{"once", func(n int) bool { return n == 3 }, nil, 1},
		{"always", func(n int) bool { return n%4 == 0 }, ErrVerify, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			mnt := testfault.Mount(t, dst, &testfault.Faults{Corrupts: c.corrupts})
			r, err := tryCopy(image, mnt+"/copy", func(o *Options) { o.Verify = true })
			if !errors.Is(err, c.err) || r.Repaired != c.repaired {
				t.Fatalf("error %v, %d blocks repaired", err, r.Repaired)
			}
			if c.err != nil {
				testimg.OnlyHolds(t, dst)
				return
			}
			testimg.Same(t, image, dst+"/copy")
			testimg.Remove(t, dst+"/copy")
		})
	}
}

// TestVerifyWithoutTransfer: what was shared instead of written is hashed as well.
func TestVerifyWithoutTransfer(t *testing.T) {
	dir := testvol.Mount(t, "btrfs", testvol.MinSize)
	image := testimg.New(t, dir+"/image", 7, 3*mib)
	r := mustCopy(t, image, dir+"/copy", func(o *Options) { o.Verify, o.Manifest = true, dir+"/copy.manifest" })
	if r.Method != move.MethodClone {
		t.Errorf("copied by %s", r.Method)
	}
	if _, err := Check(context.Background(), dir+"/copy", dir+"/copy.manifest", Defaults()); err != nil {
		t.Error(err)
	}
}

func TestCheckAndCompare(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 8, digest.Block+3*mib)
	copied, manifest := dst+"/copy", dst+"/copy.manifest"
	mustCopy(t, image, copied, func(o *Options) { o.Manifest = manifest })
	ctx := context.Background()
	if d, err := Check(ctx, copied, manifest, Defaults()); err != nil || d != nil {
		t.Errorf("a good copy: %v, %v", d, err)
	}
	if d, err := Compare(ctx, image, copied, Defaults()); err != nil || d != nil {
		t.Errorf("two like images: %v, %v", d, err)
	}
	poke(t, copied, digest.Block+5)
	want := []Difference{{digest.Block, 3 * mib}}
	if d, err := Check(ctx, copied, manifest, Defaults()); !errors.Is(err, ErrVerify) || !slices.Equal(d, want) {
		t.Errorf("one byte changed: %v, %v", d, err)
	}
	if d, err := Compare(ctx, copied, image, Defaults()); !errors.Is(err, ErrVerify) || !slices.Equal(d, want) {
		t.Errorf("one byte differs: %v, %v", d, err)
	}
	if err := os.Truncate(copied, mib); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(ctx, copied, manifest, Defaults()); !errors.Is(err, ErrVerify) {
		t.Errorf("cut off: %v", err)
	}
	if _, err := Compare(ctx, copied, image, Defaults()); !errors.Is(err, ErrVerify) {
		t.Errorf("of different sizes: %v", err)
	}
	if IsManifest(copied) || !IsManifest(manifest) {
		t.Error("a manifest is not told from an image")
	}
}

// poke changes one byte.
func poke(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0xff
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestDeviceAgainstManifest: a device may be larger than its image.
func TestDeviceAgainstManifest(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 9, imageSize)
	dev := testvol.Device(t, deviceSize)
	dirty(t, dev)
	mustCopy(t, image, dev, func(o *Options) { o.Overwrite, o.Verify, o.Manifest = dest.Replace, true, src+"/m" })
	if _, err := Check(context.Background(), dev, src+"/m", Defaults()); err != nil {
		t.Error(err)
	}
	if _, err := Compare(context.Background(), dev, image, Defaults()); err != nil {
		t.Error(err)
	}
}

func TestInUseIsNotCompared(t *testing.T) {
	src, _ := testimg.Dirs(t)
	a, b := testimg.New(t, src+"/a", 1, mib), testimg.New(t, src+"/b", 1, mib)
	o := Defaults()
	o.Users = testimg.UsedBy(t, b, true)
	if _, err := Compare(context.Background(), a, b, o); !errors.Is(err, source.ErrInUse) || !strings.Contains(err.Error(), "rhevm") {
		t.Errorf("error %v", err)
	}
}

// TestForgedManifest: a size that is not the image's is seen before memory is made for its blocks.
func TestForgedManifest(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, mib)
	const size = 1 << 48
	sum := strings.Repeat("0", 64)
	testimg.Write(t, src+"/m", fmt.Sprintf(`{"type":"manifest","version":1,"image":"x","size":%d,"algorithm":"blake3-256","leaf":1048576,"block":67108864}`+
		"\n"+`{"type":"blocks","first":0,"count":%d,"sum":"%s"}`+"\n"+`{"type":"root","sum":"%s"}`+"\n", int64(size), size>>26, sum, sum))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Check(context.Background(), image, src+"/m", Defaults())
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrVerify) {
		t.Errorf("error %v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 16*mib {
		t.Errorf("%d MiB were allocated for a manifest of three lines", n/mib)
	}
}

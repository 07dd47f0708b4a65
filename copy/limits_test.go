// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/copy/checkpoint"
	"imgward/copy/internal/testimg"
)

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

// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"imgward/copy/dest"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
)

func TestFromPipe(t *testing.T) {
	for _, size := range []int64{0, 1, mib, 5*mib + 77} {
		src, dst := testimg.Dirs(t)
		image := testimg.New(t, src+"/image", uint64(size), size)
		pipe := testimg.Fifo(t)
		testimg.Fill(t, pipe, image)
		mustCopy(t, pipe, dst+"/copy", func(o *Options) { o.Verify, o.Manifest = true, src+"/m" })
		testimg.Same(t, image, dst+"/copy")
		if got := testimg.Stat(t, dst+"/copy").Size; got != size {
			t.Errorf("size %d became %d", size, got)
		}
		if _, err := Check(context.Background(), image, src+"/m", Defaults()); err != nil {
			t.Error(err)
		}
		testimg.OnlyHolds(t, dst, "copy")
	}
}

func TestFromPipeToDevice(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 1, imageSize)
	dev := testvol.Device(t, deviceSize)
	dirty(t, dev)
	pipe := testimg.Fifo(t)
	testimg.Fill(t, pipe, image)
	mustCopy(t, pipe, dev, func(o *Options) { o.Overwrite = dest.Replace })
	testimg.Same(t, image, dev)
}

func TestToPipe(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 3, 4*mib+5)
	pipe := testimg.Fifo(t)
	got := make(chan error, 1)
	go func() {
		r, err := os.Open(pipe)
		if err == nil {
			var b []byte
			b, err = io.ReadAll(r)
			err = errors.Join(err, os.WriteFile(dst+"/copy", b, 0o600))
		}
		got <- err
	}()
	mustCopy(t, image, pipe, func(o *Options) { o.Manifest = src + "/m" })
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	testimg.Same(t, image, dst+"/copy")
	if _, err := Check(context.Background(), dst+"/copy", src+"/m", Defaults()); err != nil {
		t.Error(err)
	}
}

// TestSilentPipe: a pipe that nobody writes to does not keep a copy from being interrupted.
func TestSilentPipe(t *testing.T) {
	_, dst := testimg.Dirs(t)
	pipe := testimg.Fifo(t)
	w, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that it has a writer
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 50*time.Millisecond, errStopped)
	defer cancel()
	if _, err := Copy(ctx, pipe, dst+"/copy", Defaults()); !errors.Is(err, errStopped) {
		t.Errorf("error %v", err)
	}
	testimg.OnlyHolds(t, dst)
}

func TestEmptyPipe(t *testing.T) {
	_, dst := testimg.Dirs(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer r.Close()
	stdin := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = stdin }()
	var log testimg.Log
	mustCopy(t, "-", dst+"/copy", func(o *Options) { o.Log = log.Logger() })
	if !log.Has("empty") {
		t.Errorf("no warning that nothing came: %q", log.Lines)
	}
}

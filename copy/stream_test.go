package imgcopy

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/copy/internal/testvol"
)

func fifo(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/pipe"
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fill writes a file into a pipe, a piece at a time, in the background. Only a reader that has had what it asked for
// (count=) may go before the end.
func fill(t *testing.T, pipe, from string) {
	t.Helper()
	b := []byte(content(t, from))
	done := make(chan error, 1)
	go func() {
		w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{w}, strings.NewReader(string(b)), make([]byte, 7777))
			err = errors.Join(err, w.Close())
		}
		done <- err
	}()
	t.Cleanup(func() {
		if r, err := os.OpenFile(pipe, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			r.Close() // a writer that nobody came to read from need not wait any longer
		}
		if err := <-done; err != nil && !errors.Is(err, unix.EPIPE) {
			t.Error(err)
		}
	})
}

func TestFromPipe(t *testing.T) {
	for _, size := range []int64{0, 1, mib, 5*mib + 77} {
		src, dst := dirs(t)
		image := newImage(t, src+"/image", uint64(size), size)
		pipe := fifo(t)
		fill(t, pipe, image)
		mustCopy(t, pipe, dst+"/copy", func(o *Options) { o.Verify, o.Manifest = true, src+"/m" })
		sameBytes(t, image, dst+"/copy")
		if got := stat(t, dst+"/copy").Size; got != size {
			t.Errorf("size %d became %d", size, got)
		}
		if _, err := Check(context.Background(), image, src+"/m", Defaults()); err != nil {
			t.Error(err)
		}
		onlyHolds(t, dst, "copy")
	}
}

func TestFromPipeToDevice(t *testing.T) {
	src, _ := dirs(t)
	image := newImage(t, src+"/image", 1, imageSize)
	dev := testvol.Device(t, deviceSize)
	dirty(t, dev)
	pipe := fifo(t)
	fill(t, pipe, image)
	mustCopy(t, pipe, dev, func(o *Options) { o.Overwrite = Replace })
	sameBytes(t, image, dev)
}

func TestToPipe(t *testing.T) {
	src, dst := dirs(t)
	image := newImage(t, src+"/image", 3, 4*mib+5)
	pipe := fifo(t)
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
	sameBytes(t, image, dst+"/copy")
	if _, err := Check(context.Background(), dst+"/copy", src+"/m", Defaults()); err != nil {
		t.Error(err)
	}
}

// TestSilentPipe: a pipe that nobody writes to does not keep a copy from being interrupted.
func TestSilentPipe(t *testing.T) {
	_, dst := dirs(t)
	pipe := fifo(t)
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
	onlyHolds(t, dst)
}

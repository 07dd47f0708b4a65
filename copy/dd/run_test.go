// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	imgcopy "imgward/copy"
	"imgward/copy/dest"
	"imgward/copy/internal/testfault"
	"imgward/copy/internal/testimg"
	"imgward/copy/internal/testvol"
	"imgward/copy/move"
	"imgward/copy/source"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// runDD runs ours.
func runDD(t *testing.T, change func(*imgcopy.Options), operands ...string) (Stats, error) {
	t.Helper()
	op, err := Parse(operands)
	if err != nil {
		t.Fatal(err)
	}
	o := imgcopy.Defaults()
	if change != nil {
		change(&o)
	}
	d := New(op, o)
	err = d.Run(context.Background())
	return d.Stats(), err
}

// gnuDD runs the model and returns its two lines about records.
func gnuDD(operands ...string) (records string, err error) { return gnuDDWith(nil, nil, operands...) }

// gnuDDWith gives it a standard input and output.
func gnuDDWith(stdin, stdout *os.File, operands ...string) (records string, err error) {
	var words bytes.Buffer
	cmd := exec.Command("dd", operands...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stderr = &words
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if stdout != nil {
		cmd.Stdout = stdout
	}
	err = cmd.Run()
	for line := range strings.Lines(words.String()) {
		if strings.HasSuffix(line, "records in\n") || strings.HasSuffix(line, "records out\n") {
			records += line
		}
	}
	return records, err
}

// TestLikeGNUDD compares what dd and imgcp dd leave in the output, over random operands and descriptors.
func TestLikeGNUDD(t *testing.T) {
	const rounds = 500
	dir := t.TempDir()
	in := testimg.New(t, dir+"/in", 21, 300*kib+123)
	for round := range uint64(rounds) {
		r := testimg.Random(round)
		operands, io, size := randomOperands(r), randomDescriptors(r), int64(r.IntN(3))*100*kib
		line := fmt.Sprintf("round %d: %q, %+v, output: %d bytes", round, operands, io, size)
		out := [2]string{dir + "/gnu", dir + "/ours"}
		for _, path := range out {
			_ = os.Remove(path)
			if size > 0 {
				testimg.New(t, path, round+1000, size)
			}
		}
		want, wantAt, wantErr := io.run(t, in, out[0], func(stdin, stdout *os.File, names ...string) (string, error) {
			return gnuDDWith(stdin, stdout, append(names, operands...)...)
		})
		got, gotAt, gotErr := io.run(t, in, out[1], func(stdin, stdout *os.File, names ...string) (string, error) {
			defer func(in, out *os.File) { os.Stdin, os.Stdout = in, out }(os.Stdin, os.Stdout)
			os.Stdin, os.Stdout = stdin, stdout
			s, err := runDD(t, func(o *imgcopy.Options) { o.Overwrite = dest.InPlace }, append(names, operands...)...)
			return s.Records(), err
		})
		if (wantErr == nil) != (gotErr == nil) {
			t.Fatalf("%s: dd: %v; imgcp dd: %v", line, wantErr, gotErr)
		}
		if wantErr != nil {
			continue
		}
		if !bytes.Equal(fileOrNil(out[0]), fileOrNil(out[1])) {
			t.Fatalf("%s: the outputs differ (%d and %d bytes)", line, len(fileOrNil(out[0])), len(fileOrNil(out[1])))
		}
		if got != want {
			t.Fatalf("%s: dd says\n%simgcp dd says\n%s", line, want, got)
		}
		if gotAt != wantAt {
			t.Fatalf("%s: dd leaves its descriptors at %d, imgcp dd at %d", line, wantAt, gotAt)
		}
	}
}

// descriptors say what dd gets by name, and what as standard input and output, as a shell would open it.
type descriptors struct {
	in    bool  // <in, else if=
	inAt  int64 // where somebody left off reading
	out   int   // open(2) flags of >out, >>out, 1<>out; -1 for of=
	outAt int64
}

func randomDescriptors(r *rand.Rand) descriptors {
	at := func() int64 { return []int64{0, 0, 777, 4096, 400000}[r.IntN(5)] }
	d := descriptors{in: r.IntN(2) == 0, out: -1}
	if d.in {
		d.inAt = at()
	}
	if r.IntN(2) == 0 {
		d.out = []int{os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND, os.O_RDWR}[r.IntN(3)]
		d.outAt = at()
	}
	return d
}

// run opens what goes by descriptor and names the rest. It returns where the descriptors stand afterwards.
func (d descriptors) run(t *testing.T, in, out string, dd func(stdin, stdout *os.File, names ...string) (string, error)) (records string, at [2]int64, err error) {
	stdin, stdout := os.Stdin, os.Stdout
	var names []string
	descriptor := func(path string, flags int, off int64) *os.File {
		f, err := os.OpenFile(path, flags|os.O_CREATE, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.Seek(off, 0); err != nil {
			t.Fatal(err)
		}
		return f
	}
	if names = append(names, "if="+in); d.in {
		stdin, names = descriptor(in, os.O_RDONLY, d.inAt), nil
	}
	if d.out >= 0 {
		stdout = descriptor(out, d.out, d.outAt)
	} else {
		names = append(names, "of="+out)
	}
	records, err = dd(stdin, stdout, names...)
	if d.in {
		at[0], _ = stdin.Seek(0, 1)
	}
	if d.out >= 0 {
		at[1], _ = stdout.Seek(0, 1)
	}
	return records, at, err
}

func fileOrNil(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return b
}

// randomOperands picks from everything that imgcp dd knows and that has one result.
func randomOperands(r *rand.Rand) (operands []string) {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	size := func() string { return pick("1", "7", "512", "1000", "4096", "4K", "8kB", "64K", "1M", "3x512") }
	maybe := func(format string, values ...any) {
		if r.IntN(3) == 0 {
			operands = append(operands, fmt.Sprintf(format, values...))
		}
	}
	if r.IntN(8) == 0 { // GNU dd takes only whole blocks of the medium then
		operands = append(operands, "bs="+pick("4096", "64K"), "iflag="+pick("direct", "direct,fullblock", "fullblock"), "oflag=direct")
		maybe("count=%s", pick("0", "2", "200"))
		maybe("skip=%s", pick("1", "5", "200"))
		maybe("seek=%s", pick("1", "5"))
		maybe("conv=%s", pick("notrunc", "sync", "sparse", "notrunc,sparse", "swab"))
		return operands
	}
	tiny := false
	switch r.IntN(3) {
	case 0:
		bs := size()
		tiny = bs == "1" || bs == "7"
		operands = append(operands, "bs="+bs)
	case 1:
		operands = append(operands, "ibs="+pick("100", "512", "4096", "70000"), "obs="+pick("100", "512", "5000", "64K"))
	}
	if tiny || r.IntN(3) > 0 {
		operands = append(operands, "count="+pick("0", "1", "3", "17", "1000B", "9kB", "200"))
	}
	maybe("skip=%s", pick("0", "1", "5", "777B", "10000"))
	maybe("seek=%s", pick("0", "1", "5", "777B", "60"))
	conversions := []string{}
	for _, c := range []string{"notrunc", "sparse", "sync", "swab", "noerror", "fsync", "fdatasync", pick("lcase", "ucase"), pick("excl", "nocreat")} {
		if r.IntN(5) == 0 {
			conversions = append(conversions, c)
		}
	}
	if len(conversions) > 0 {
		operands = append(operands, "conv="+strings.Join(conversions, ","))
	}
	maybe("iflag=%s", pick("fullblock", "skip_bytes", "count_bytes", "fullblock,skip_bytes,count_bytes", "nocache", "noatime",
		"append", "nonblock", "directory", "sync"))
	maybe("oflag=%s", pick("append", "seek_bytes", "dsync", "nofollow", "nocache", "append,nonblock", "directory", "noatime", "noctty"))
	return operands
}

func TestDDZeroes(t *testing.T) {
	dir := t.TempDir()
	s, err := runDD(t, nil, "if=/dev/zero", "of="+dir+"/new", "bs=1M", "count=20", "conv=fsync")
	if err != nil || s.Bytes != 20*mib || s.FullOut != 20 {
		t.Fatalf("%+v, %v", s, err)
	}
	if st := testimg.Stat(t, dir+"/new"); st.Size != 20*mib || st.Blocks*512 < 20*mib {
		t.Errorf("size %d, %d bytes allocated", st.Size, st.Blocks*512)
	}
	f := testimg.Open(t, dir+"/new")
	b := make([]byte, 20*mib)
	if _, err := f.ReadAt(b, 0); err != nil || !move.IsZero(b) {
		t.Errorf("there is something other than zeroes in it (%v)", err)
	}
	testimg.Dense(t, dir+"/old", mib)
	if _, err := runDD(t, nil, "if=/dev/zero", "of="+dir+"/old", "bs=4k", "count=3", "seek=2", "conv=notrunc"); err != nil {
		t.Fatal(err)
	}
	if b := []byte(testimg.Content(t, dir+"/old")); !move.IsZero(b[8*kib:20*kib]) || move.IsZero(b[4*kib:8*kib]) || move.IsZero(b[20*kib:24*kib]) || len(b) != mib {
		t.Error("zeroes in the middle of a file are not where they were asked for")
	}
}

func TestDDDestroysNothing(t *testing.T) {
	dir := t.TempDir()
	in := testimg.New(t, dir+"/in", 1, 64*kib)
	testimg.Write(t, dir+"/vm-disk2.img", "the live database")
	_, err := runDD(t, nil, "if="+in, "of="+dir+"/vm-disk2.img", "bs=4k")
	if !errors.Is(err, dest.ErrExists) || !strings.Contains(err.Error(), "next free name: "+dir+"/vm-disk3.img") {
		t.Errorf("it exists: error %v", err)
	}
	for _, conv := range []string{"conv=notrunc", "conv=sparse", "oflag=append"} {
		_, err = runDD(t, func(o *imgcopy.Options) {
			o.Overwrite, o.Users = dest.InPlace, testimg.UsedBy(t, dir+"/vm-disk2.img", true)
		},
			"if="+in, "of="+dir+"/vm-disk2.img", "bs=4k", conv)
		if !errors.Is(err, source.ErrInUse) {
			t.Errorf("%s, in use: error %v", conv, err)
		}
	}
	if testimg.Content(t, dir+"/vm-disk2.img") != "the live database" {
		t.Error("it was overwritten")
	}
	if _, err := runDD(t, nil, "if="+in, "of=/dev/imgcp-no-such-device"); err == nil || exists("/dev/imgcp-no-such-device") {
		t.Errorf("a typo made a file in /dev: %v", err)
	}
	if _, err := runDD(t, func(o *imgcopy.Options) { o.Users = testimg.UsedBy(t, in, true) }, "if="+in, "of="+dir+"/new"); !errors.Is(err, source.ErrInUse) {
		t.Errorf("a source in use: error %v", err)
	}
	testimg.OnlyHolds(t, dir, "in", "vm-disk2.img")
}

func TestDDDevice(t *testing.T) {
	dir := t.TempDir()
	in := testimg.New(t, dir+"/in", 1, 3*mib)
	dev := testvol.Device(t, 8*mib)
	if _, err := runDD(t, nil, "if="+in, "of="+dev); !errors.Is(err, dest.ErrExists) {
		t.Errorf("without --overwrite: error %v", err)
	}
	noisy := []byte(testimg.Noise(testimg.Random(2), 8*mib))
	if err := os.WriteFile(dev, noisy, 0); err != nil {
		t.Fatal(err)
	}
	for _, operands := range []string{"bs=1M seek=2 conv=fsync", "bs=64k seek=16 oflag=direct iflag=direct", "obs=1000 seek=3B"} {
		if err := os.WriteFile(dev, noisy, 0); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"if=" + in, "of=" + dev}, strings.Fields(operands)...)
		if _, err := runDD(t, func(o *imgcopy.Options) { o.Overwrite = dest.Replace }, args...); err != nil {
			t.Fatalf("%s: %v", operands, err)
		}
		ours := testimg.Content(t, dev)
		if err := os.WriteFile(dir+"/model", noisy, 0o600); err != nil {
			t.Fatal(err)
		}
		args[1] = "of=" + dir + "/model"
		if _, err := gnuDD(append(args, "conv=notrunc")...); err != nil {
			t.Fatal(err)
		}
		if ours != testimg.Content(t, dir+"/model") {
			t.Errorf("%s: the device does not hold what dd writes", operands)
		}
	}
}

// TestDDErrors: conv=noerror goes on after a bad block, with or without padding, like dd.
func TestDDErrors(t *testing.T) {
	testvol.Root(t)
	src, dst := testimg.Dirs(t)
	testimg.Dense(t, src+"/image", mib)
	for _, conv := range []string{"conv=noerror", "conv=noerror,sync"} {
		mnt := testfault.MountBad(t, src, 512*kib, 4096, 0)
		_, gnuErr := gnuDD("if="+mnt+"/image", "of="+dst+"/gnu", "bs=4096", conv)
		_, err := runDD(t, nil, "if="+mnt+"/image", "of="+dst+"/ours", "bs=4096", conv)
		if gnuErr != nil || err != nil {
			t.Errorf("%s: dd ends with %v, imgcp dd with %v; going on was asked for", conv, gnuErr, err)
		}
		if testimg.Content(t, dst+"/gnu") != testimg.Content(t, dst+"/ours") {
			t.Errorf("%s: dd leaves %d bytes, imgcp dd %d, or they differ", conv, testimg.Stat(t, dst+"/gnu").Size, testimg.Stat(t, dst+"/ours").Size)
		}
		testimg.Remove(t, dst+"/gnu")
		testimg.Remove(t, dst+"/ours")
	}
	mnt := testfault.MountBad(t, src, 512*kib, 4096, 0)
	if _, err := runDD(t, nil, "if="+mnt+"/image", "of="+dst+"/ours", "bs=4096"); err == nil {
		t.Error("a bad block: no error")
	}
	testimg.OnlyHolds(t, dst)
}

// TestDDRecords covers what has no name to be seen by: short reads from a pipe.
func TestDDRecords(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 2, 100*kib)
	pipe := testimg.Fifo(t)
	testimg.Fill(t, pipe, image)
	if _, err := runDD(t, nil, "if="+pipe, "of="+dst+"/copy", "bs=10k", "iflag=fullblock", "skip=1", "count=5"); err != nil {
		t.Fatal(err)
	}
	if testimg.Content(t, dst+"/copy") != testimg.Content(t, image)[10*kib:60*kib] {
		t.Error("skip= and count= of a pipe went wrong")
	}
}

// TestDDSignals: a signal cuts a read of /dev/zero or /dev/urandom short, and Go's runtime sends itself some (SIGURG).
// Records are whole all the same, or count= would copy less than it says.
func TestDDSignals(t *testing.T) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Kill(os.Getpid(), unix.SIGURG)
			}
		}
	}()
	for _, in := range []string{"/dev/zero", "/dev/urandom"} {
		st, err := runDD(t, nil, "if="+in, "of=/dev/null", "bs=4M", "count=50")
		if err != nil || st.FullIn != 50 || st.PartialIn != 0 || st.Bytes != 200*mib {
			t.Errorf("%s: %+v, error %v", in, st, err)
		}
	}
	close(stop)
	<-done
}

// TestDDNonBlock: iflag=nonblock takes what is there: nothing of a FIFO without a writer, an error of a silent one.
func TestDDNonBlock(t *testing.T) {
	dir := t.TempDir()
	pipe := testimg.Fifo(t)
	for _, silent := range []bool{false, true} {
		if silent {
			writer, err := os.OpenFile(pipe, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
		}
		want, gnuErr := gnuDD("if="+pipe, "of="+dir+"/gnu", "iflag=nonblock")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		op, _ := Parse([]string{"if=" + pipe, "of=" + dir + "/ours", "iflag=nonblock"})
		d := New(op, imgcopy.Defaults())
		err := d.Run(ctx)
		if (err == nil) != (gnuErr == nil) || err == nil && d.Stats().Records() != want || ctx.Err() != nil {
			t.Errorf("silent: %v: dd says %q, %v; imgcp dd %q, %v", silent, want, gnuErr, d.Stats().Records(), err)
		}
	}
}

// TestDDDirectory: what cannot be a directory is left as it is.
func TestDDDirectory(t *testing.T) {
	dir := t.TempDir()
	testimg.Write(t, dir+"/old", "contents")
	_, err := runDD(t, func(o *imgcopy.Options) { o.Overwrite = dest.InPlace }, "if=/dev/zero", "of="+dir+"/old", "count=1", "oflag=directory")
	if err == nil || testimg.Content(t, dir+"/old") != "contents" {
		t.Errorf("error %v, contents %q", err, testimg.Content(t, dir+"/old"))
	}
}

// TestDDOntoItself: dd would empty the file before it reads it.
func TestDDOntoItself(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 2, 100*kib)
	if err := os.Link(image, src+"/link"); err != nil {
		t.Fatal(err)
	}
	was := testimg.Content(t, image)
	for _, operands := range [][]string{
		{"if=" + image, "of=" + image}, {"if=" + image, "of=" + src + "/link"}, {"if=" + image, "of=" + image, "bs=1k", "seek=2", "count=1"},
	} {
		_, err := runDD(t, func(o *imgcopy.Options) { o.Overwrite = dest.InPlace }, operands...)
		if err == nil || !strings.Contains(err.Error(), "conv=notrunc") || testimg.Content(t, image) != was {
			t.Errorf("%q: error %v; unchanged: %v", operands, err, testimg.Content(t, image) == was)
		}
	}
	if _, err := runDD(t, nil, "if="+image, "of="+image, "bs=1k", "seek=1", "count=1", "conv=notrunc"); err != nil {
		t.Error(err) // nothing is cut off
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestDDLimited: a rate limit holds for each of the two ways. This one lets 1 MiB pass, and says at once that more never
// will.
func TestDDLimited(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.Dense(t, src+"/image", 4*mib)
	for _, conv := range []string{"conv=fsync", "conv=sync"} {
		op, err := Parse([]string{"if=" + image, "of=" + dst + "/copy", "bs=64k", conv})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		o := imgcopy.Defaults()
		o.Limit = rate.NewLimiter(0, mib)
		if err := New(op, o).Run(ctx); err == nil {
			t.Errorf("%s: 4 MiB passed where 1 MiB is allowed", conv)
		}
		testimg.OnlyHolds(t, dst)
	}
}

// TestDDZeroesWithoutRoom: what will not fit is refused before the disk is full.
func TestDDZeroesWithoutRoom(t *testing.T) {
	dir := testvol.Mount(t, "ext4", 16*mib)
	testimg.Write(t, dir+"/old", "contents")
	for _, out := range []string{"/new", "/old"} {
		_, err := runDD(t, func(o *imgcopy.Options) { o.Overwrite = dest.InPlace }, "if=/dev/zero", "of="+dir+out, "bs=1M", "count=64")
		if !errors.Is(err, move.ErrNoSpace) || !strings.Contains(err.Error(), "the copy needs 64.0 MiB") {
			t.Errorf("%s: error %v", out, err)
		}
	}
	if got := testimg.Content(t, dir+"/old"); got != "contents" {
		t.Errorf("what was to be overwritten has %q", got)
	}
	testimg.OnlyHolds(t, dir, "old")
}

// TestDDOverWithoutRoom: what is there is not truncated for what will not fit.
func TestDDOverWithoutRoom(t *testing.T) {
	src, _ := testimg.Dirs(t)
	image := testimg.Dense(t, src+"/image", 24*mib)
	dir := testvol.Mount(t, "ext4", 16*mib)
	old := testimg.Write(t, dir+"/old", "contents")
	_, err := runDD(t, func(o *imgcopy.Options) { o.Overwrite = dest.InPlace }, "if="+image, "of="+old, "bs=1M")
	if got := testimg.Content(t, old); !errors.Is(err, move.ErrNoSpace) || got != "contents" {
		t.Errorf("error %v; it holds %d bytes", err, len(got))
	}
	if _, err := runDD(t, func(o *imgcopy.Options) { o.Overwrite = dest.InPlace }, "if="+image, "of="+old, "bs=1M", "count=8"); err != nil {
		t.Errorf("8 MiB of it: %v", err)
	}
}

package imgcopy

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

	"golang.org/x/sys/unix"

	"imgward/copy/dd"
	"imgward/copy/internal/testvol"
)

// runDD runs ours.
func runDD(t *testing.T, change func(*Options), operands ...string) (dd.Stats, error) {
	t.Helper()
	op, err := dd.Parse(operands)
	if err != nil {
		t.Fatal(err)
	}
	o := Defaults()
	if change != nil {
		change(&o)
	}
	d := NewDD(op, o)
	err = d.Run(context.Background())
	return d.Stats(), err
}

// gnuDD runs the model and returns its two lines about records.
func gnuDD(operands ...string) (records string, err error) {
	cmd := exec.Command("dd", operands...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.HasSuffix(line, "records in\n") || strings.HasSuffix(line, "records out\n") {
			records += line
		}
	}
	return records, err
}

// TestLikeGNUDD compares what dd and imgcp dd leave in the output, over random operands.
func TestLikeGNUDD(t *testing.T) {
	const rounds = 200
	dir := t.TempDir()
	in := newImage(t, dir+"/in", 21, 300*kib+123)
	for round := range uint64(rounds) {
		r := random(round)
		operands := randomOperands(r)
		existing := r.IntN(2) == 0
		var want, got string
		var outcome [2]error
		for i, out := range []string{dir + "/gnu", dir + "/ours"} {
			_ = os.Remove(out)
			if existing {
				newImage(t, out, round+1000, int64(r.IntN(2))*100*kib+200*kib)
				r = random(round) // both get the same
				randomOperands(r)
				r.IntN(2)
			}
			args := append([]string{"if=" + in, "of=" + out}, operands...)
			if i == 0 {
				want, outcome[i] = gnuDD(args...)
				continue
			}
			var s dd.Stats
			s, outcome[i] = runDD(t, func(o *Options) { o.Overwrite = InPlace }, args...)
			got = s.Records()
		}
		line := fmt.Sprintf("round %d: %q, output exists: %v", round, operands, existing)
		if (outcome[0] == nil) != (outcome[1] == nil) {
			t.Fatalf("%s: dd: %v; imgcp dd: %v", line, outcome[0], outcome[1])
		}
		if outcome[0] != nil {
			continue
		}
		if !bytes.Equal(fileOrNil(dir+"/gnu"), fileOrNil(dir+"/ours")) {
			t.Fatalf("%s: the outputs differ (%d and %d bytes)", line, len(fileOrNil(dir+"/gnu")), len(fileOrNil(dir+"/ours")))
		}
		if got != want {
			t.Fatalf("%s: dd says\n%simgcp dd says\n%s", line, want, got)
		}
	}
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
	maybe("iflag=%s", pick("fullblock", "skip_bytes", "count_bytes", "fullblock,skip_bytes,count_bytes", "nocache", "noatime"))
	maybe("oflag=%s", pick("append", "seek_bytes", "dsync", "nofollow", "nocache"))
	return operands
}

func TestDDZeroes(t *testing.T) {
	dir := t.TempDir()
	s, err := runDD(t, nil, "if=/dev/zero", "of="+dir+"/new", "bs=1M", "count=20", "conv=fsync")
	if err != nil || s.Bytes != 20*mib || s.FullOut != 20 {
		t.Fatalf("%+v, %v", s, err)
	}
	if st := stat(t, dir+"/new"); st.Size != 20*mib || st.Blocks*512 < 20*mib {
		t.Errorf("size %d, %d bytes allocated", st.Size, st.Blocks*512)
	}
	f := open(t, dir+"/new")
	b := make([]byte, 20*mib)
	if _, err := f.ReadAt(b, 0); err != nil || !allZero(b) {
		t.Errorf("there is something other than zeroes in it (%v)", err)
	}
	dense(t, dir+"/old", mib)
	if _, err := runDD(t, nil, "if=/dev/zero", "of="+dir+"/old", "bs=4k", "count=3", "seek=2", "conv=notrunc"); err != nil {
		t.Fatal(err)
	}
	if b := []byte(content(t, dir+"/old")); !allZero(b[8*kib:20*kib]) || isZero(b[4*kib:8*kib]) || isZero(b[20*kib:24*kib]) || len(b) != mib {
		t.Error("zeroes in the middle of a file are not where they were asked for")
	}
}

func TestDDDestroysNothing(t *testing.T) {
	dir := t.TempDir()
	in := newImage(t, dir+"/in", 1, 64*kib)
	write(t, dir+"/vm-disk2.img", "the live database")
	_, err := runDD(t, nil, "if="+in, "of="+dir+"/vm-disk2.img", "bs=4k")
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "next free name: "+dir+"/vm-disk3.img") {
		t.Errorf("it exists: error %v", err)
	}
	for _, conv := range []string{"conv=notrunc", "conv=sparse", "oflag=append"} {
		_, err = runDD(t, func(o *Options) { o.Overwrite, o.Users = InPlace, usedBy(t, dir+"/vm-disk2.img", true) },
			"if="+in, "of="+dir+"/vm-disk2.img", "bs=4k", conv)
		if !errors.Is(err, ErrInUse) {
			t.Errorf("%s, in use: error %v", conv, err)
		}
	}
	if content(t, dir+"/vm-disk2.img") != "the live database" {
		t.Error("it was overwritten")
	}
	if _, err := runDD(t, nil, "if="+in, "of=/dev/imgcp-no-such-device"); err == nil || exists("/dev/imgcp-no-such-device") {
		t.Errorf("a typo made a file in /dev: %v", err)
	}
	if _, err := runDD(t, func(o *Options) { o.Users = usedBy(t, in, true) }, "if="+in, "of="+dir+"/new"); !errors.Is(err, ErrInUse) {
		t.Errorf("a source in use: error %v", err)
	}
	onlyHolds(t, dir, "in", "vm-disk2.img")
}

func TestDDDevice(t *testing.T) {
	dir := t.TempDir()
	in := newImage(t, dir+"/in", 1, 3*mib)
	dev := testvol.Device(t, 8*mib)
	if _, err := runDD(t, nil, "if="+in, "of="+dev); !errors.Is(err, ErrExists) {
		t.Errorf("without --overwrite: error %v", err)
	}
	noisy := []byte(noise(random(2), 8*mib))
	if err := os.WriteFile(dev, noisy, 0); err != nil {
		t.Fatal(err)
	}
	for _, operands := range []string{"bs=1M seek=2 conv=fsync", "bs=64k seek=16 oflag=direct iflag=direct", "obs=1000 seek=3B"} {
		if err := os.WriteFile(dev, noisy, 0); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"if=" + in, "of=" + dev}, strings.Fields(operands)...)
		if _, err := runDD(t, func(o *Options) { o.Overwrite = Replace }, args...); err != nil {
			t.Fatalf("%s: %v", operands, err)
		}
		ours := content(t, dev)
		if err := os.WriteFile(dir+"/model", noisy, 0o600); err != nil {
			t.Fatal(err)
		}
		args[1] = "of=" + dir + "/model"
		if _, err := gnuDD(append(args, "conv=notrunc")...); err != nil {
			t.Fatal(err)
		}
		if ours != content(t, dir+"/model") {
			t.Errorf("%s: the device does not hold what dd writes", operands)
		}
	}
}

// TestDDErrors: conv=noerror goes on after a bad block, with or without padding, like dd.
func TestDDErrors(t *testing.T) {
	testvol.Root(t)
	src, dst := dirs(t)
	dense(t, src+"/image", mib)
	for _, conv := range []string{"conv=noerror", "conv=noerror,sync"} {
		mnt := mountBad(t, src, 512*kib, 4096, 0)
		_, _ = gnuDD("if="+mnt+"/image", "of="+dst+"/gnu", "bs=4096", conv)
		_, err := runDD(t, nil, "if="+mnt+"/image", "of="+dst+"/ours", "bs=4096", conv)
		if !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: error %v, want ErrIncomplete", conv, err)
		}
		if content(t, dst+"/gnu") != content(t, dst+"/ours") {
			t.Errorf("%s: dd leaves %d bytes, imgcp dd %d, or they differ", conv, stat(t, dst+"/gnu").Size, stat(t, dst+"/ours").Size)
		}
		remove(t, dst+"/gnu")
		remove(t, dst+"/ours")
	}
	mnt := mountBad(t, src, 512*kib, 4096, 0)
	if _, err := runDD(t, nil, "if="+mnt+"/image", "of="+dst+"/ours", "bs=4096"); err == nil {
		t.Error("a bad block: no error")
	}
	onlyHolds(t, dst)
}

// TestDDRecords covers what has no name to be seen by: short reads from a pipe.
func TestDDRecords(t *testing.T) {
	src, dst := dirs(t)
	image := newImage(t, src+"/image", 2, 100*kib)
	pipe := fifo(t)
	fill(t, pipe, image)
	if _, err := runDD(t, nil, "if="+pipe, "of="+dst+"/copy", "bs=10k", "iflag=fullblock", "skip=1", "count=5"); err != nil {
		t.Fatal(err)
	}
	if content(t, dst+"/copy") != content(t, image)[10*kib:60*kib] {
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

// TestDDOntoItself: dd would empty the file before it reads it.
func TestDDOntoItself(t *testing.T) {
	src, _ := dirs(t)
	image := newImage(t, src+"/image", 2, 100*kib)
	if err := os.Link(image, src+"/link"); err != nil {
		t.Fatal(err)
	}
	was := content(t, image)
	for _, operands := range [][]string{
		{"if=" + image, "of=" + image}, {"if=" + image, "of=" + src + "/link"}, {"if=" + image, "of=" + image, "bs=1k", "seek=2", "count=1"},
	} {
		_, err := runDD(t, func(o *Options) { o.Overwrite = InPlace }, operands...)
		if err == nil || !strings.Contains(err.Error(), "conv=notrunc") || content(t, image) != was {
			t.Errorf("%q: error %v; unchanged: %v", operands, err, content(t, image) == was)
		}
	}
	if _, err := runDD(t, nil, "if="+image, "of="+image, "bs=1k", "seek=1", "count=1", "conv=notrunc"); err != nil {
		t.Error(err) // nothing is cut off
	}
}

// SPDX-License-Identifier: Apache-2.0

package dd

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestParseSize asks GNU dd what a number means, by how many bytes count= copies, and whether it is one at all.
func TestParseSize(t *testing.T) {
	for _, s := range []string{
		"0", "7", "1c", "2w", "3b", "1k", "1K", "1kB", "1KB", "1KiB", "1kiB", "1kD", "3x5", "80x18b", "10B",
		"3bB", "1kDB", "+3", " 1", "\t2", "2x+3", "2x 3", "k", "kB", "00012", "2x1kB", "2x1kD", "1kBx2", "10Bx3", "0x10", "0Z",
		"1Zx0", "0YB", "99999999999999999999x0",
		"", "x", "1x", "x1", "-1", "1Q", "1m", "1kBB", "1 ", "0x10z", "2x3x7", "3x100B", "1Bx1B", "2x1cB", "1KiBD", "7cD", "1Ki",
		"+k", "++3", "B", " k", "9223372036854775808", "8E", "4Ex4", "1Z",
	} {
		cmd := exec.Command("dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count="+s)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		want := int64(-1)
		for line := range strings.Lines(string(out)) { // a warning about 0x may come first
			if err == nil && strings.HasSuffix(line, " records in\n") {
				_, _ = fmt.Sscanf(line, "%d+0", &want)
			}
		}
		got, gotErr := ParseSize(s)
		if gotErr != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d (%v), GNU dd says %d (%v)", s, got, gotErr, want, err)
		}
	}
	for s, want := range map[string]int64{"7E": 7 << 60, "1EiB": 1 << 60, "9223372036854775807": math.MaxInt64, "1T": 1 << 40, "2M": 2 << 20, "2MB": 2e6, "2MD": 2e6} {
		if got, err := ParseSize(s); err != nil || got != want { // more than GNU dd would copy in a lifetime
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
}

func TestParse(t *testing.T) {
	o, err := Parse(strings.Fields("if=a of=b ibs=1K obs=3 skip=5 seek=10B count=4kB conv=notrunc,sparse conv=fsync iflag=fullblock"))
	if err != nil {
		t.Fatal(err)
	}
	want := Operands{
		In: "a", Out: "b", IBS: 1024, OBS: 3, TwoBuffers: true, Limited: true,
		Skip: Amount{Records: 5}, Seek: Amount{3, 1}, Count: Amount{3, 928},
		Conv: NoTrunc | Sparse | Fsync, IFlag: FullBlock,
	}
	if o != want {
		t.Errorf("parsed %+v, want %+v", o, want)
	}
	if o, _ := Parse([]string{"bs=8", "ibs=1"}); o.IBS != 8 || o.TwoBuffers {
		t.Errorf("bs= does not outweigh ibs=: %+v", o)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"img", "fi=a", "bs=0", "ibs=", "count=-1", "conv=ebcdic", "conv=excl,nocreat", "conv=lcase,ucase", "conv=",
		"oflag=fullblock", "iflag=seek_bytes", "oflag=skip_bytes", "iflag=direct,nocache", "status=yes", "cbs=80",
		"bs=4G", "bs=1M skip=16E", "seek=9223372036854775807 bs=2", "--if=a",
	} {
		if o, err := Parse(strings.Fields(s)); err == nil {
			t.Errorf("%s: parsed as %+v", s, o)
		}
	}
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		bytes int64
		d     time.Duration
		want  string
	}{
		{0, time.Second, "0 bytes copied, 1 s, 0 B/s"},
		{1, time.Second, "1 byte copied, 1 s, 1 B/s"},
		{1000, time.Second, "1000 bytes (1.0 kB) copied, 1 s, 1.0 kB/s"},
		{5242880, 10 * time.Millisecond, "5242880 bytes (5.2 MB, 5.0 MiB) copied, 0.01 s, 524 MB/s"},
		{42949672960, 123456789 * time.Microsecond, "42949672960 bytes (43 GB, 40 GiB) copied, 123.457 s, 348 MB/s"},
	} {
		if got := (Stats{Bytes: c.bytes}).Transfer(c.d); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if got := (&Operands{IBS: 512, OBS: 1000}).Counted(1500).Records(); got != "2+1 records in\n1+1 records out\n" {
		t.Errorf("records %q", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("if=a of=b bs=1M count=3 conv=notrunc,sparse")
	f.Add("ibs=7x3b skip=1kB seek=2x+2w oflag=append,direct status=progress")
	f.Fuzz(func(t *testing.T, line string) {
		o, err := Parse(strings.Split(line, " "))
		if err != nil {
			return
		}
		if o.IBS < 1 || o.OBS < 1 || o.IBS > maxBlock || o.OBS > maxBlock {
			t.Fatalf("block sizes %d and %d", o.IBS, o.OBS)
		}
		for _, n := range []int64{o.Skip.Total(o.IBS), o.Seek.Total(o.OBS)} {
			if n < 0 || n == math.MaxInt64 {
				t.Fatalf("offset %d", n)
			}
		}
		if o.Count.Total(o.IBS) < 0 {
			t.Fatalf("count of %d bytes", o.Count.Total(o.IBS))
		}
	})
}

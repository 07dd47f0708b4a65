// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"imgward/copy/dest"
	"imgward/copy/internal/testimg"
	"imgward/copy/source"
)

// standardPipes makes standard input and output pipes for the rest of the test: content comes from the one, and somebody
// takes what goes to the other.
func standardPipes(t *testing.T, content string) {
	t.Helper()
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sink, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	was := [2]*os.File{os.Stdin, os.Stdout}
	os.Stdin, os.Stdout = in, out
	fed, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(fed)
		_, _ = feed.WriteString(content) // what is not wanted is EPIPE
		feed.Close()
	}()
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, sink)
	}()
	t.Cleanup(func() {
		os.Stdin, os.Stdout = was[0], was[1]
		in.Close()
		out.Close()
		<-fed
		<-drained
		sink.Close()
	})
}

// asked sets the option that a rule is about.
var asked = map[string]func(*Options){
	"--verify": func(o *Options) { o.Verify = true }, "--manifest": func(o *Options) { o.Manifest = "m" },
	"--rate-limit":   func(o *Options) { o.Limit = rate.NewLimiter(rate.Inf, 1) },
	"--sparse=never": func(o *Options) { o.KeepZeroes = true }, "--direct=always": func(o *Options) { o.Direct = Always },
	"--live": func(o *Options) { o.Live = asIfLive{} }, "--resume": func(o *Options) { o.Resume = true },
	"--reflink=always": func(o *Options) { o.Reflink = Always }, "--on-error": func(o *Options) { o.OnError, o.Map = Zero, "m" },
	"--chain":       func(o *Options) { o.Header = func(io.ReaderAt) ([]byte, error) { return nil, nil } },
	"--flat":        func(o *Options) { o.Flat = true },
	"--preallocate": func(o *Options) { o.Preallocate = true }, "--preserve": func(o *Options) { o.Preserve = true },
}

// TestStreamRules: what does not hold for a pipe is refused before anything is made or read, and the rest is taken.
func TestStreamRules(t *testing.T) {
	src, dst := testimg.Dirs(t)
	t.Chdir(t.TempDir())
	image := testimg.New(t, src+"/image", 5, mib+5)
	if len(asked) != len(streamRules) {
		t.Fatalf("%d options are tried, there are %d rules", len(asked), len(streamRules))
	}
	for _, r := range streamRules {
		for _, way := range []struct{ from, to bool }{{true, false}, {false, true}, {true, true}} {
			t.Run(fmt.Sprintf("%s from %v to %v", r.option, way.from, way.to), func(t *testing.T) {
				standardPipes(t, testimg.Content(t, image))
				from, to := image, filepath.Join(dst, "copy")
				if way.from {
					from = "-"
				}
				if way.to {
					to = "-"
				}
				_, err := tryCopy(from, to, asked[r.option])
				var refused *OptionError
				want := way.from && r.from != "" || way.to && r.to != ""
				if errors.As(err, &refused) != want || !want && err != nil {
					t.Errorf("error %v; to be refused: %v", err, want)
				}
				if !want && !way.to {
					testimg.Remove(t, to)
				}
				testimg.OnlyHolds(t, dst)
			})
		}
	}
}

// spent lets 1 MiB pass and never any more, and who waits for that is told so at once.
func spent(t *testing.T) (context.Context, *rate.Limiter) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	t.Cleanup(cancel)
	return ctx, rate.NewLimiter(0, mib)
}

// TestStreamsAreLimited: --rate-limit holds for pipes.
func TestStreamsAreLimited(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.Dense(t, src+"/image", 4*mib)
	standardPipes(t, testimg.Content(t, image))
	for _, way := range [][2]string{{image, "-"}, {"-", dst + "/copy"}} {
		ctx, limit := spent(t)
		o := Defaults()
		o.Limit = limit
		if _, err := Copy(ctx, way[0], way[1], o); err == nil {
			t.Errorf("%s to %s: 4 MiB passed where 1 MiB is allowed", way[0], way[1])
		}
	}
}

// TestStandardInputAtOffset: what somebody else has read of standard input is no part of the image, which is asked for in
// use all the same.
func TestStandardInputAtOffset(t *testing.T) {
	src, dst := testimg.Dirs(t)
	image := testimg.New(t, src+"/image", 6, 3*mib+7)
	f := testimg.Open(t, image)
	defer func(stdin *os.File) { os.Stdin = stdin }(os.Stdin)
	os.Stdin = f
	const at = mib + 1000
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := tryCopy("-", dst+"/copy", func(o *Options) { o.Users = testimg.UsedBy(t, image, true) }); !errors.Is(err, source.ErrInUse) {
		t.Errorf("in use: error %v", err)
	}
	mustCopy(t, "-", dst+"/copy", func(o *Options) { o.Overwrite = dest.Refuse })
	if got := testimg.Content(t, dst+"/copy"); got != testimg.Content(t, image)[at:] {
		t.Errorf("the copy has %d bytes, want %d, or they differ", len(got), 3*mib+7-at)
	}
}

// TestStreamTable: the documentation has the table that the code goes by.
func TestStreamTable(t *testing.T) {
	if doc := testimg.Content(t, "../docs/imgcp.md"); !strings.Contains(doc, streamTable()) {
		t.Errorf("docs/imgcp.md has another table than\n%s", streamTable())
	}
}

// streamTable is which options hold from and to a pipe, in Markdown.
func streamTable() string {
	var b strings.Builder
	b.WriteString("| option | from a pipe | to a pipe |\n| --- | --- | --- |\n")
	for _, r := range streamRules {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.option, holds(r.from), holds(r.to))
	}
	return b.String()
}

func holds(why string) string {
	if why == "" {
		return "holds"
	}
	return "refused: " + why
}

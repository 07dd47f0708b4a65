// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"imgcp": main}) }

// TestScripts runs testdata/script: the command as people type it, its words and its exit codes.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": expectCode, "image": makeImage, "lock": lockImage,
		},
	})
}

// expectCode N COMMAND… runs a command that must end with exit code N.
func expectCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		var ok bool
		if code, ok = exitCodeOf(err); !ok {
			ts.Fatalf("%v", err)
		}
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("%s ended with exit code %d, want %s", args[1], code, args[0])
	}
}

func exitCodeOf(err error) (int, bool) {
	e, ok := err.(interface{ ExitCode() int })
	if !ok {
		return 0, false
	}
	return e.ExitCode(), true
}

// makeImage FILE MIB makes a dense image.
func makeImage(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := make([]byte, n<<20)
	for i := range b {
		b[i] = byte(i>>12 | 1)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

// lockImage FILE holds QEMU's lock for writing (byte 101) until the script ends.
func lockImage(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	ts.Defer(func() { f.Close() })
	for _, at := range []int64{101, 201} {
		l := unix.Flock_t{Type: unix.F_RDLCK, Start: at, Len: 1}
		ts.Check(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l))
	}
}

// TestEveryOptionIsComplete: each option with a choice of values offers them, and there is no table entry without one.
func TestEveryOptionIsComplete(t *testing.T) {
	c := newRoot()
	for name := range flagValues {
		if c.Flags().Lookup(name) == nil {
			t.Errorf("--%s is no option", name)
		}
		if _, ok := c.GetFlagCompletionFunc(name); !ok {
			t.Errorf("the shell does not know the values of --%s", name)
		}
	}
}

func TestCompleteOperand(t *testing.T) {
	got, _ := completeOperand(&cobra.Command{}, nil, "conv=sparse,f")
	want := map[string]bool{"conv=sparse,fsync": true, "conv=sparse,sparse": false}
	for offer, is := range want {
		found := false
		for _, g := range got {
			found = found || g == offer
		}
		if found != is {
			t.Errorf("%s is offered: %v, want %v", offer, found, is)
		}
	}
}

// TestManPage: every option is in the manual, and EXAMPLES comes before OPTIONS.
func TestManPage(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "dist", "man", "imgcp.1"))
	if err != nil {
		t.Fatal(err)
	}
	checkManual(t, string(b))
}

// TestHelpFits: on a terminal of 80 columns.
func TestHelpFits(t *testing.T) {
	for _, c := range append(newRoot().Commands(), newRoot()) {
		for _, line := range strings.Split(helpText(c), "\n") {
			if n := utf8.RuneCountInString(line); n > 80 {
				t.Errorf("%s --help: %d columns: %s", c.CommandPath(), n, line)
			}
		}
	}
}

// TestSidecarNames: a manifest lies with its copy, also in shared memory, which is in /dev; a device has no such place.
func TestSidecarNames(t *testing.T) {
	f := copyFlags{manifest: defaultManifest, onError: "stop"}
	for to, want := range map[string]string{"/srv/a": "/srv/a.manifest", "/dev/shm/a": "/dev/shm/a.manifest", "/dev/vg0/a": ""} {
		j := &job{to: to}
		if err := f.sidecars([]*job{j}); j.manifest != want || (err != nil) != (want == "") {
			t.Errorf("%s: manifest %q, error %v, want %q", to, j.manifest, err, want)
		}
	}
}

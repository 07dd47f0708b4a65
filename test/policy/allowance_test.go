// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imgward/test/harness"
)

// sh runs a shell script and returns its exit code and what it said.
func sh(t *testing.T, script string) (int, string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// An exception covers the operations that it names, for whole commands as people type them.
func TestExceptionWords(t *testing.T) {
	v := mount(t, allAlways)
	for i, c := range []struct {
		name, ops string
		once      bool
		scripts   []string // each with the exit code that it is to have, as "0 dd …"
		size      int64    // of the image at the end, in bytes; it is 4,096 at first
	}{
		{"truncate alone lets dd truncate, not write", "truncate", false,
			[]string{"1 dd if=/dev/zero of=$IMG bs=1k count=8"}, 0},
		{"truncate alone is enough to cut it by its name", "truncate", false,
			[]string{`0 python3 -c 'import os,sys; os.truncate(sys.argv[1], 100)' $IMG`}, 100},
		{"both let dd do all of it", "truncate,write", false,
			[]string{"0 dd if=/dev/zero of=$IMG bs=1k count=8", "0 dd if=/dev/zero of=$IMG bs=1k count=9"}, 9 << 10},
		{"write alone does not truncate", "write", false,
			[]string{"1 truncate -s 1k $IMG", "0 dd if=/dev/zero of=$IMG bs=1k count=8 conv=notrunc"}, 8 << 10},
		{"once is one truncate(1), which opens and truncates", "truncate,write", true,
			[]string{"0 truncate -s 1k $IMG", "1 truncate -s 2k $IMG"}, 1 << 10},
		{"once is one dd, however much it writes", "truncate,write", true,
			[]string{"0 dd if=/dev/zero of=$IMG bs=1k count=8", "1 dd if=/dev/zero of=$IMG bs=1k count=9"}, 8 << 10},
		{"once is one script and what it runs", "truncate,write", true,
			[]string{"0 sh -c ': >$IMG && { dd bs=1k count=3; dd bs=1k count=4; } </dev/zero >>$IMG'", "2 sh -c ': >$IMG'"}, 7 << 10},
		{"once is one fallocate(1)", "truncate,write", true,
			[]string{"0 fallocate -z -l 1k $IMG", "1 fallocate -z -l 1k $IMG"}, 4096},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := v.image(t, fmt.Sprintf("%d.img", i))
			args := []string{"allow", "--op", c.ops, "--for", "1m", "--reason", "test"}
			if c.once {
				args = append(args, "--once")
			}
			v.run(t, append(args, image)...)
			for _, script := range c.scripts {
				var want int
				var line string
				fmt.Sscanf(script, "%d", &want)
				_, line, _ = strings.Cut(script, " ")
				if got, said := sh(t, "export IMG="+image+"; "+line); got != want {
					t.Errorf("%s: exit code %d, want %d: %s", line, got, want, said)
				}
			}
			if st, err := os.Stat(image); err != nil || st.Size() != c.size {
				t.Errorf("it has %d bytes in the end, want %d (%v)", st.Size(), c.size, err)
			}
		})
	}
}

// What is open by an exception is written for as long as that holds, over a take-over as well.
func TestExceptionEndsForHandles(t *testing.T) {
	v := mount(t, allAlways)
	image := v.image(t, "a.img")
	me := program(t, t.TempDir()+"/me")
	v.run(t, "allow", "--op", "write", "--for", "1m", "--reason", "test", image)
	writer := holdOpen(t, me, image)
	for range 2 {
		if got := writer.write(t); got != "ok" {
			t.Errorf("while it holds: %s", got)
		}
		v.killWorker(t)
	}
	v.run(t, "allow", "--revoke", "1", v.dir)
	if got := writer.write(t); got != "EBUSY" {
		t.Errorf("after its end: %s", got)
	}
}

// A single use is over when its command is, not before, and nobody else has a part in it.
func TestOnceWhileItsCommandRuns(t *testing.T) {
	v := mount(t, allAlways)
	image := v.image(t, "a.img")
	me := program(t, t.TempDir()+"/me")
	v.run(t, "allow", "--op", "all", "--for", "1m", "--once", "--reason", "test", image)
	cmd := exec.Command("sh", "-c", "exec 3>>"+image+"; echo open; read line; echo more >&3 && echo written")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	lines := bufio.NewScanner(out)
	lines.Scan()
	if got := does(t, me, 0, "o_trunc", image); got != "EBUSY" {
		t.Errorf("another command meanwhile: %s", got)
	}
	if list := v.run(t, "allow", "--list", v.dir); !strings.Contains(list, "in use by sh (pid "+fmt.Sprint(cmd.Process.Pid)+")") {
		t.Errorf("the list does not name the command: %s", list)
	}
	v.killWorker(t)
	io.WriteString(in, "\n")
	if lines.Scan(); lines.Text() != "written" {
		t.Errorf("the command's second step: %q", lines.Text())
	}
	cmd.Wait()
	if list := v.run(t, "allow", "--list", v.dir); strings.TrimSpace(list) != "no exception is in force" {
		t.Errorf("it is there after its command: %s", list)
	}
}

var printedHint = regexp.MustCompile(`imgward allow --op \S+ --for 5m --reason WHY [^\r\n]+`)

// The line that a refusal ends with is enough for the command that was refused, once it has a reason in it.
func TestHintIsEnough(t *testing.T) {
	v := mount(t, "[[rule]]\npaths = [\"*.img\"]\nprotect = \"always\"\n")
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"dd":       "dd if=/dev/zero of=$IMG bs=1k count=8",
		"notrunc":  "dd if=/dev/zero of=$IMG bs=1k count=8 conv=notrunc",
		"truncate": "truncate -s 1k $IMG",
		"redirect": "echo x >$IMG",
		"append":   "echo x >>$IMG",
		"punch":    "fallocate -p -o 0 -l 4096 $IMG",
		"rm":       "rm -f $IMG",
		"mv":       "mv $IMG $IMG.away",
		"replace":  "touch $IMG.new && mv -f $IMG.new $IMG",
		"chattr":   "chattr +i $IMG && chattr -i $IMG",
		"cp":       "cp /etc/passwd $IMG",
		"shred":    "shred -n 1 $IMG",
	} {
		image := v.image(t, name+".img")
		script = strings.ReplaceAll(script, "$IMG", image)
		screen := harness.OnTerminal(t, script)
		// The terminal wraps nothing by itself: a line is a line.
		hint := printedHint.FindString(screen)
		if hint == "" {
			t.Errorf("%s: no hint on the terminal: %q", name, screen)
			continue
		}
		asPrinted := filepath.Dir(bin) + "/" + hint
		if code, said := sh(t, asPrinted); code != 2 || !strings.Contains(said, "WHY") {
			t.Errorf("%s: as printed, without a reason: exit code %d, %s", name, code, said)
		}
		if code, said := sh(t, strings.Replace(asPrinted, " WHY ", " 'the test' ", 1)); code != 0 {
			t.Errorf("%s: %s: %s", name, hint, said)
		}
		if code, said := sh(t, script); code != 0 {
			t.Errorf("%s, after %q: exit code %d, %s", name, hint, code, said)
		}
	}
}

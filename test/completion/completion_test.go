// SPDX-License-Identifier: Apache-2.0

// Package completion types commands into real shells on a terminal, presses the tabulator, and looks at what is run.
package completion

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/need"
)

// driver runs a shell on a terminal of its own, types lines, each with a tabulator at its end, and prints what the shell ran.
const driver = `
import os, pty, select, sys, time
shell, init = sys.argv[1:3]
pid, fd = pty.fork()
if pid == 0:
    args = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"], "fish": ["fish", "--no-config", "-i"]}[shell]
    os.execvp(args[0], args)
screen = b""
def until(mark):
    global screen
    end = time.time() + 60
    while mark not in screen and time.time() < end:
        if select.select([fd], [], [], 0.1)[0]:
            try: screen += os.read(fd, 65536)
            except OSError: break
    if mark not in screen:
        sys.exit("no %r from %s:\n%r" % (mark, shell, screen))
    before, screen = screen.split(mark, 1)
    return before
def quiet(seconds): # what the shell draws; no test of time: what is typed too early waits in the terminal
    global screen
    while select.select([fd], [], [], seconds)[0]:
        try: screen += os.read(fd, 65536)
        except OSError: break
def type(text): os.write(fd, text.encode())
quiet(1)
type(init + "; echo rea''dy\r")
until(b"ready\r\n")
for line in sys.argv[3:]:
    quiet(0.3)
    type(line + "\t")
    quiet(0.5)
    type("\r")
    until(b"<<")
    print(until(b">>").decode())
os.kill(pid, 9)
`

// TestCompletion: each shell completes a command's own words, and the names of files.
func TestCompletion(t *testing.T) {
	need.Have(t, need.Terminals, need.Tools("python3", "bash", "zsh", "fish"))
	dir := t.TempDir()
	bin, work := filepath.Join(dir, "bin"), filepath.Join(dir, "work")
	for _, d := range []string{bin, work, filepath.Join(work, "images")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	real := os.Getenv("IMGWARD_BIN")
	if real == "" {
		real = filepath.Join(dir, "real")
		build := exec.Command("go", "build", "-o", real+"/", "imgward/cmd/imgward", "imgward/cmd/imgcp")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build: %v %s", err, out)
		}
	}
	// What the shell runs: the real program for questions, else the arguments are shown.
	for _, name := range []string{"imgward", "imgcp"} {
		script := "#!/bin/sh\ncase $1 in __complete*|completion) exec " + real + "/" + name + " \"$@\";; esac\nprintf '<<'; printf '%s|' \"$@\"; printf '>>\\n'\n"
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"vm-disk2.img", "verdi.img"} {
		if err := os.WriteFile(filepath.Join(work, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	loads := map[string]string{
		"bash": "source /usr/share/bash-completion/bash_completion; source <(imgward completion bash); source <(imgcp completion bash)",
		"zsh":  "autoload -U compinit; compinit -u -D; source <(imgward completion zsh); source <(imgcp completion zsh)",
		"fish": "imgward completion fish | source; imgcp completion fish | source",
	}
	for shell, load := range loads {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			lines := [][2]string{
				{"imgcp vm", "vm-disk2.img|"},
				{"imgcp verd", "verdi.img|"},
				{"imgcp --live=su", "--live=suspend-reflink|"},
				{"imgward ch", "check|"},
				{"imgward check trun", "check|truncate|"},
				{"imgward check truncate vm", "check|truncate|vm-disk2.img|"},
				{"imgward allow --op truncate,wri", "allow|--op|truncate,write|"},
				{"imgward umount ima", "umount|images/|"},
				{"imgward status ima", "status|images/|"},
				{"imgward mount -o nopass", "mount|-o|nopassthrough|"},
				{"imgward mount ima", "mount|images/|"},
				{"imgward graph --format s", "graph|--format|svg|"},
				{"imgward policy show --preset str", "policy|show|--preset|strict|"},
				{"imgward who verd", "who|verdi.img|"},
			}
			cmd := exec.Command("python3", "-c", driver, shell, "PATH="+bin+":$PATH; "+load)
			if shell == "fish" {
				cmd.Args[4] = "set -gx PATH " + bin + " $PATH; " + load
			}
			for _, l := range lines {
				cmd.Args = append(cmd.Args, l[0])
			}
			cmd.Dir = work
			cmd.Env = append(os.Environ(), "TERM=xterm", "HOME="+dir, "LC_ALL=C.UTF-8")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			ran := strings.Split(strings.TrimSpace(string(out)), "\n")
			for i, l := range lines {
				// Of a directory some shells write the slash, others leave it to the next tabulator.
				if ran[i] != l[1] && ran[i] != strings.Replace(l[1], "/|", "|", 1) {
					t.Errorf("%q: ran %q, want %q", l[0], ran[i], l[1])
				}
			}
		})
	}
}

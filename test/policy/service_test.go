package policy

import (
	"bufio"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgward/cmd/imgward/control"
	"imgward/fs/keeper"
)

const unitFile = "../../dist/systemd/imgward@.service"

// unit gives a setting of the unit, the values of all its lines.
func unit(t *testing.T, key string) (values []string) {
	t.Helper()
	f, err := os.Open(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), key+"="); ok {
			values = append(values, strings.Fields(v)...)
		}
	}
	if len(values) == 0 {
		t.Fatalf("the unit has no %s", key)
	}
	return values
}

// service runs the unit's command line as systemd would: with its capabilities, its system calls, kept descriptors, and
// a successor when it dies. strace writes down which system calls were made.
func service(t *testing.T, dir string) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	caps := "-all"
	for _, c := range unit(t, "CapabilityBoundingSet") {
		caps += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	base := filepath.Dir(dir)
	trace := filepath.Join(base, "trace")
	args := []string{"-f", "-qq", "-A", "-o", trace, "-e", "trace=!futex,nanosleep,epoll_pwait,read,write", "--seccomp-bpf",
		"setpriv", "--no-new-privs", "--bounding-set", caps, "--inh-caps", "-all", bin}
	for _, word := range unit(t, "ExecStart")[1:] {
		args = append(args, strings.ReplaceAll(word, "%f", dir))
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	t.Setenv("WATCHDOG_USEC", "300000")
	k := &keeper.Keeper{
		Log: slog.New(slog.DiscardHandler), Binary: "/usr/bin/strace", Args: args,
		Socket: filepath.Join(base, "notify"), Ready: func() { close(ready) },
	}
	go func() { ended <- k.Run() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("it has not started: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("it does not start")
	}
	t.Cleanup(func() {
		if out, err := exec.Command(bin, "umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("the service does not end")
		}
		if _, err := os.Stat(control.Dir(dir)); err == nil {
			t.Errorf("%s is left behind", control.Dir(dir))
		}
		checkCalls(t, trace)
	})
}

// The unit's command line, under its capabilities, serves, refuses, and comes back after it was killed.
func TestService(t *testing.T) {
	base, err := os.MkdirTemp("/var/lib", "imgward-service-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	v := &view{dir: filepath.Join(base, "view")}
	if err := os.Mkdir(v.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	service(t, v.dir)
	me := program(t, filepath.Join(base, "me"))
	for round := range 2 {
		image := v.image(t, "a.img")
		for _, op := range []string{"read", "write", "truncate", "rename", "replace", "chmod", "unlink", "rename-dir"} {
			if got := does(t, me, 0, op, v.image(t, "dir/"+op)); got != "ok" {
				t.Errorf("round %d: %s: %s", round, op, got)
			}
		}
		if err := os.Chown(image, nobody, nobody); err != nil {
			t.Error(err)
		}
		for _, op := range []string{"read", "write"} {
			if got := does(t, me, nobody, op, image); got != "ok" {
				t.Errorf("round %d: %s as another user: %s", round, op, got)
			}
		}
		for _, command := range []string{"mknod %/fifo p", "chattr +i %/a.img", "chattr -i %/a.img", "chmod g+s %", "setfattr -n user.a -v 1 %/a.img"} {
			if out, err := exec.Command("sh", "-c", strings.ReplaceAll(command, "%", v.dir)).CombinedOutput(); err != nil && !strings.Contains(string(out), "not found") {
				t.Errorf("round %d: %s: %v %s", round, command, err, out)
			}
		}
		os.Remove(filepath.Join(v.dir, "fifo"))
		if round == 0 {
			v.killWorker(t)
		}
	}
}

// checkCalls compares what the daemon called with what the unit lets it call.
func checkCalls(t *testing.T, trace string) {
	allowed := map[string]bool{}
	filter := unit(t, "SystemCallFilter")
	var deny bool
	for _, word := range filter {
		if rest, ok := strings.CutPrefix(word, "~"); ok {
			deny, word = true, rest
		}
		for _, call := range expand(t, word) {
			allowed[call] = !deny
		}
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var outside []string
	calls, served := 0, false
	for line := range strings.Lines(string(text)) {
		// The daemon's own calls begin when setpriv has become it.
		served = served || strings.Contains(line, "execve(") && strings.Contains(line, "/imgward\"")
		_, line, _ = strings.Cut(line, " ")
		name, _, ok := strings.Cut(strings.TrimSpace(line), "(")
		if !ok || !served || strings.ContainsAny(name, " <+-") {
			continue
		}
		calls++
		if !allowed[name] && !slices.Contains(outside, name) {
			outside = append(outside, name)
		}
	}
	if calls < 100 {
		t.Errorf("only %d system calls were seen", calls)
	}
	if len(outside) > 0 {
		t.Errorf("calls that the unit forbids: %q", outside)
	}
}

// expand gives the system calls of a group, as this systemd knows it.
func expand(t *testing.T, word string) []string {
	if !strings.HasPrefix(word, "@") {
		return []string{word}
	}
	out, err := exec.Command("systemd-analyze", "syscall-filter", word).Output()
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter %s: %v", word, err)
	}
	var calls []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line == word || line[0] == '#':
		default:
			calls = append(calls, expand(t, line)...)
		}
	}
	return calls
}

// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const unitFile = "../../dist/systemd/imgward@.service"

// underStrace has the worker's system calls written down. The tracer is a process of its own beside the worker (-D), so
// that the worker is the service's main process as ever.
const underStrace = `[Service]
ExecStart=
ExecStart=/usr/bin/strace -D -f -qq -A -o /run/imgward/.trace -e trace=!futex,nanosleep,epoll_pwait,read,write /usr/bin/imgward mount -f %f
SystemCallFilter=@debug
`

// everything is what people do with files: each line is run on the view. %u runs the rest as another user.
var everything = []string{
	"echo 1 >a; cat a; truncate -s 10 a; truncate -s 1M a; chmod 600 a; chown 65534:65534 a; touch -d 2020-01-01 a",
	"mkdir d; mv a d/b; ln d/b c; ln -s c l; readlink l; cat l >/dev/null; mv -f c d/c; rm -r d l",
	"mknod p p; rm p; mknod n c 1 3; rm n; mknod s b 7 0; rm s",
	"touch a; chattr +i a; lsattr a; chattr -i a; chmod u+s,g+s a; chmod g+s .; setcap cap_net_raw+ep a || setfattr -n security.x -v 1 a; rm a",
	"touch a; setfattr -n trusted.a -v 1 a; getfattr -dm- a; setfattr -x trusted.a a; setfacl -m u:65534:r a; getfacl a; rm a",
	"truncate -s 1M a; fallocate -p -o 4096 -l 4096 a; fallocate -l 2M a; cp --sparse=always a b; cp --reflink=auto b c; dd if=a of=c conv=notrunc,fsync status=none; sync -f c; df . >/dev/null; rm a b c",
	"flock a -c true; rm a; chmod 777 .",
	"%u sh -c 'echo 1 >mine; cat mine; mkdir my; touch my/x; mv mine my/y; rm -r my'",
	"find . >/dev/null; ls -la >/dev/null",
}

// The worker calls nothing that the unit forbids, whatever is asked of it.
func TestCalls(t *testing.T) {
	b := boot(t)
	b.install(t)
	b.run(t, "mkdir -p "+images+" && touch "+images+"/vm.img; mkdir -p /run/systemd/system/"+service+".d; cat >/run/systemd/system/"+service+".d/strace.conf <<'EOF'\n"+underStrace+"EOF\nsystemctl daemon-reload; systemctl start "+service)
	for range 2 {
		for _, line := range everything {
			b.run(t, "set -e; cd "+images+"; "+strings.ReplaceAll(line, "%u", "setpriv --reuid 65534 --regid 65534 --clear-groups"))
		}
		b.kill(t, "kill -9 %d")
	}
	b.run(t, "imgward allow --op all --for 1m --reason test "+images+"/x 2>/dev/null; imgward doctor >/dev/null; imgward events "+images)
	b.run(t, "imgward umount "+images)
	b.ended(t)
	checkCalls(t, b.run(t, "cat /run/imgward/.trace"))
}

// checkCalls compares what the daemon called with what the unit lets it call.
func checkCalls(t *testing.T, trace string) {
	allowed := allowedCalls(t)
	var outside []string
	calls, served := 0, false
	unread := map[string]string{} // by thread: a call that strace could not read, because the thread was being killed
	for line := range strings.Lines(trace) {
		served = served || strings.Contains(line, "execve(") // before, it is strace's own work
		thread, line, _ := strings.Cut(line, " ")
		if strings.Contains(line, "+++ killed by SIGKILL") {
			delete(unread, thread)
		}
		name, _, ok := strings.Cut(strings.TrimSpace(line), "(")
		if !ok || !served || strings.ContainsAny(name, " <+-") {
			continue
		}
		if name == "???" {
			unread[thread] = line
			continue
		}
		calls++
		if !allowed[name] && !slices.Contains(outside, name) {
			outside = append(outside, name)
		}
	}
	if calls < 1000 {
		t.Errorf("only %d system calls were seen", calls)
	}
	if len(unread) > 0 {
		t.Errorf("calls that strace could not read, of threads that were not killed: %q", unread)
	}
	if len(outside) > 0 {
		t.Errorf("calls that the unit forbids: %q", outside)
	}
}

// allowedCalls are the unit's SystemCallFilter lines, one after the other, as systemd takes them.
func allowedCalls(t *testing.T) map[string]bool {
	t.Helper()
	f, err := os.Open(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	allowed := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		filter, ok := strings.CutPrefix(lines.Text(), "SystemCallFilter=")
		if !ok {
			continue
		}
		filter, deny := strings.CutPrefix(filter, "~")
		for _, word := range strings.Fields(filter) {
			for _, call := range expand(t, word) {
				allowed[call] = !deny
			}
		}
	}
	if len(allowed) == 0 {
		t.Fatal("the unit filters nothing")
	}
	return allowed
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

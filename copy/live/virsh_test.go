package live

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeVirsh stands for libvirt's shell: it keeps the domain's state in a file and notes every call. test/e2e has the real
// one; this one can be made to fail, and is there where the test must kill somebody between two calls.
const fakeVirsh = `#!/bin/sh
dir=$(dirname "$0")
[ "$1" = --quiet ] && shift
echo "$*" >>"$dir/calls"
case "$1" in
domstate) cat "$dir/state" ;;
suspend) [ -e "$dir/no-suspend" ] && { echo "error: no" >&2; exit 1; }; echo paused >"$dir/state" ;;
resume) echo running >"$dir/state" ;;
dumpxml) echo '<domain><devices><disk><driver type="raw"/><target dev="vda"/></disk></devices></domain>' ;;
qemu-agent-command) [ -e "$dir/agent" ] || { echo "error: no agent" >&2; exit 1; } ;;
domfsfreeze) echo frozen >"$dir/frozen" ;;
domfsthaw) rm -f "$dir/frozen" ;;
backup-begin)
	cp "$5" "$dir/request.xml"
	to=$(sed -n 's/.*file="\([^"]*\)".*/\1/p' "$5")
	cp "$dir/disk" "$to"
	echo "${BACKUP:-Completed}" >"$dir/job"
	;;
domjobinfo)
	job=$(cat "$dir/job")
	case "$*" in
	*--completed*) echo "Job type:         $job" ;;
	*) [ "$job" = Unbounded ] || job=None; echo "Job type:         $job" ;;
	esac
	;;
domjobabort) echo Cancelled >"$dir/job" ;;
*) echo "error: unknown command $1" >&2; exit 1 ;;
esac
`

// fake is a host with one running domain.
type fake struct {
	t   *testing.T
	dir string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t, t.TempDir()}
	f.write("virsh", fakeVirsh)
	if err := os.Chmod(f.path("virsh"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.write("state", "running\n")
	t.Setenv("PATH", f.dir+":"+os.Getenv("PATH"))
	return f
}

func (f *fake) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fake) write(name, content string) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), []byte(content), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) read(name string) string {
	b, _ := os.ReadFile(f.path(name))
	return strings.TrimSpace(string(b))
}

// calls are the commands given, without their arguments.
func (f *fake) calls() (commands []string) {
	for line := range strings.Lines(f.read("calls")) {
		commands = append(commands, strings.Fields(line)[0])
	}
	return commands
}

// eventually waits for a condition that another process brings about.
func (f *fake) eventually(what string, is func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("never %s; virsh was asked for %q", what, f.calls())
		}
	}
}

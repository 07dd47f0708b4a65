// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/gob"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Serve answers requests until the test goes away, if this process was started as an agent; otherwise it returns
// false at once. Call it before anything else in TestMain.
func Serve() bool {
	credentials, ok := os.LookupEnv(env)
	if !ok {
		return false
	}
	if err := become(credentials); err != nil {
		fmt.Fprintf(os.Stderr, "agent: %v\n", err)
		return true
	}
	p := &process{files: map[string]int{}, handles: map[string]unix.FileHandle{}, pending: map[string]*background{}}
	requests, replies := gob.NewDecoder(os.NewFile(3, "requests")), gob.NewEncoder(os.NewFile(4, "replies"))
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	for {
		var r Request
		if requests.Decode(&r) != nil {
			return true
		}
		if replies.Encode(p.answer(r)) != nil {
			return true
		}
	}
}

// become takes on the user and groups, for good.
func become(credentials string) error {
	words := strings.FieldsFunc(credentials, func(r rune) bool { return r == ':' || r == ',' })
	var ids []int
	for _, w := range words {
		id, err := strconv.Atoi(w)
		if err != nil {
			return fmt.Errorf("credentials %q: %w", credentials, err)
		}
		ids = append(ids, id)
	}
	if len(ids) == 1 {
		ids = append(ids, ids[0])
	}
	if err := syscall.Setgroups(ids[2:]); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setresgid(ids[1], ids[1], ids[1]); err != nil {
		return fmt.Errorf("setresgid: %w", err)
	}
	if err := syscall.Setresuid(ids[0], ids[0], ids[0]); err != nil {
		return fmt.Errorf("setresuid: %w", err)
	}
	syscall.Umask(0)
	// A process that changed its user may not look into its own /proc/self/fd until it says so.
	return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}

// background is an operation that runs on beside others.
type background struct {
	done chan Reply // gets one reply
	tid  int        // of the thread that runs it
}

// process is what an agent keeps between operations, by the names that the script gave.
type process struct {
	mu       sync.Mutex
	files    map[string]int
	handles  map[string]unix.FileHandle
	pending  map[string]*background
	children []*exec.Cmd
}

func (p *process) answer(r Request) (reply Reply) {
	run, ok := operations[r.Op]
	if !ok {
		return Reply{Fault: fmt.Sprintf("unknown operation %q", r.Op)}
	}
	call := &call{process: p, words: r.Args, bind: r.Bind}
	if !r.Background {
		return call.do(run)
	}
	b := &background{done: make(chan Reply, 1)}
	started := make(chan int)
	go func() {
		// Its own thread, so that "interrupt" can send this one a signal.
		runtime.LockOSThread()
		started <- unix.Gettid()
		b.done <- call.do(run)
	}()
	b.tid = <-started
	p.mu.Lock()
	p.pending[r.Bind] = b
	p.mu.Unlock()
	return Reply{}
}

// reset forgets everything that a case left, so that the agent can serve the next one.
func (p *process) reset() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killChildren()
	for name, fd := range p.files {
		unix.Close(fd)
		delete(p.files, name)
	}
	clear(p.handles)
	clear(p.pending)
	syscall.Umask(0)
	return nil
}

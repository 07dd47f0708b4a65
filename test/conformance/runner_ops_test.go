// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/conformance/agent"
	"imgward/test/conformance/script"
)

// times are the four times of a file.
type times map[string]time.Time

var timeNames = []string{"atime", "mtime", "ctime", "btime"}

// runnerOps are steps that no agent can take.
var runnerOps = map[string]func(*runner, script.Step) (string, error){
	"stamp":    (*runner).stamp,
	"moved":    (*runner).moved,
	"kept":     (*runner).kept,
	"born":     (*runner).born,
	"inode":    (*runner).rememberInode,
	"isinode":  (*runner).isInode,
	"readonly": (*runner).readOnly,
	"kill":     (*runner).kill,
	"forget":   (*runner).forget,
}

// timesOf asks for a path's times, or with "%name" for those of an open file.
func (r *runner) timesOf(who, what string) (times, error) {
	op := "lstat"
	if strings.HasPrefix(what, "%") {
		op, what = "fstat", what[1:]
	}
	reply, err := r.do(who, agent.Request{Op: op, Args: append([]string{what}, timeNames...)})
	if err != nil {
		return nil, err
	}
	values := strings.Fields(reply.Value)
	if len(values) != len(timeNames) {
		return nil, fmt.Errorf("%s %s: %s", op, what, reply.Result())
	}
	t := times{}
	for i, name := range timeNames {
		if t[name], err = parseTime(values[i]); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// parseTime reads "seconds.nanoseconds", as lstat prints it, or "none" where a file system keeps no birth time.
func parseTime(text string) (time.Time, error) {
	if text == "none" {
		return time.Time{}, nil
	}
	var sec, nsec int64
	if _, err := fmt.Sscanf(text, "%d.%d", &sec, &nsec); err != nil {
		return time.Time{}, fmt.Errorf("time %q: %w", text, err)
	}
	return time.Unix(sec, nsec), nil
}

// stamp remembers the times of files and returns when the next change must give a later one.
func (r *runner) stamp(s script.Step) (string, error) {
	var latest time.Time
	for _, what := range s.Args {
		t, err := r.timesOf(s.Who, what)
		if err != nil {
			return "", err
		}
		r.stamps[what] = t
		// Times in the far future, set by utimens, are not waited for: only ctime cannot be set.
		if t["ctime"].After(latest) {
			latest = t["ctime"]
		}
	}
	return "", waitPast(latest)
}

// waitPast waits until the clock that file systems stamp with has ticked past a time.
func waitPast(latest time.Time) error {
	for {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			return err
		}
		if time.Unix(now.Unix()).After(latest) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

// moved: FILE NAME... asserts that these times are later than at the stamp.
func (r *runner) moved(s script.Step) (string, error) {
	return r.compareTimes(s, time.Time.Before, "has not moved")
}

// kept: FILE NAME... asserts that they are what they were.
func (r *runner) kept(s script.Step) (string, error) {
	return r.compareTimes(s, time.Time.Equal, "has moved")
}

func (r *runner) compareTimes(s script.Step, good func(before, now time.Time) bool, complaint string) (string, error) {
	before, ok := r.stamps[s.Args[0]]
	if !ok {
		return "", fmt.Errorf("%s has no stamp", s.Args[0])
	}
	now, err := r.timesOf(s.Who, s.Args[0])
	if err != nil {
		return "", err
	}
	for _, name := range s.Args[1:] {
		if !good(before[name], now[name]) {
			return fmt.Sprintf("fault: %s %s: %v, now %v", name, complaint, before[name], now[name]), nil
		}
	}
	return "ok", nil
}

// born: FILE asserts that its birth time is known, and is that of the file below the view.
func (r *runner) born(s script.Step) (string, error) {
	shown, err := r.timesOf(s.Who, s.Args[0])
	if err != nil || shown["btime"].IsZero() {
		return "fault: no birth time", err
	}
	if r.place.backing == "" {
		return "ok", nil
	}
	var real unix.Statx_t
	path := filepath.Join(r.place.backing, "case", s.Args[0])
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &real); err != nil {
		return "", err
	}
	if !shown["btime"].Equal(time.Unix(real.Btime.Sec, int64(real.Btime.Nsec))) {
		return fmt.Sprintf("fault: shown as born at %v", shown["btime"]), nil
	}
	return "ok", nil
}

// rememberInode: "inode NAME PATH" keeps an inode number, which "isinode NAME PATH" compares with.
func (r *runner) rememberInode(s script.Step) (string, error) {
	reply, err := r.do(s.Who, agent.Request{Op: "lstat", Args: []string{s.Args[1], "ino"}})
	r.inodes[s.Args[0]] = reply.Value
	return reply.Result(), err
}

func (r *runner) isInode(s script.Step) (string, error) {
	reply, err := r.do(s.Who, agent.Request{Op: "lstat", Args: []string{s.Args[1], "ino"}})
	if err != nil || reply.Errno != 0 {
		return reply.Result(), err
	}
	return fmt.Sprint(reply.Value == r.inodes[s.Args[0]]), nil
}

// readOnly: "readonly on" and "readonly off" remount the file system at the bottom.
func (r *runner) readOnly(s script.Step) (string, error) {
	r.frozen = s.Args[0] == "on"
	return "ok", r.place.scratch.ReadOnly(r.frozen)
}

// kill ends the agent of the step's "@" with SIGKILL.
func (r *runner) kill(s script.Step) (string, error) {
	a, err := r.agent(s.Who)
	if err != nil {
		return "", err
	}
	a.Kill()
	delete(r.agents, s.Who)
	delete(r.used, s.Who)
	return "ok", nil
}

// forget drops the kernel's unused inodes and names, so that a view has to look everything up again.
func (r *runner) forget(script.Step) (string, error) {
	return "ok", os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0o200)
}

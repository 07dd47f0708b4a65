// SPDX-License-Identifier: Apache-2.0

// benchsurvive measures the pause that a client sees when a view's worker is killed or upgraded: how long a
// request waits that the kernel cannot answer itself. Beside it, whether reads in kernel passthrough pause.
//
//	make bench-survive            or: go run ./test/benchsurvive -kills 50
//
// It needs root and bin/imgward (or IMGWARD), and mounts a scratch directory.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/quiet"
)

// settle is how long a worker serves before it is killed: there is a standby by then.
const settle = 500 * time.Millisecond

// end is a way for a worker to make room for its successor.
type end struct {
	name    string
	options []string
	pause   func(v *view, pid int) (time.Duration, error)
}

var (
	killed   = end{"kill -9", nil, pauseKilled}
	alone    = end{"kill -9, nostandby", []string{"-o", "nostandby"}, pauseKilled}
	upgraded = end{"upgrade", nil, pauseUpgraded}
)

func main() {
	count := flag.Int("kills", 30, "take-overs for each row")
	handles := flag.Int("handles", 1000, "files held open")
	dir := flag.String("dir", "/var/lib", "where to make the scratch directory")
	flag.Parse()
	fmt.Printf("| nodes | open files | end of the worker | pause p50 | p90 | p99 | longest | longest read in passthrough | load |\n" +
		"| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, r := range []struct {
		nodes int
		end   end
	}{{10, killed}, {1000, killed}, {100_000, killed}, {1000, alone}, {1000, upgraded}} {
		if err := row(*dir, r.nodes, min(*handles, r.nodes), *count, r.end); err != nil {
			log.Fatal(err)
		}
	}
}

// row mounts a view over so many files, has the kernel know them all, holds some open, and ends workers.
func row(parent string, nodes, handles, count int, e end) (err error) {
	dir, err := os.MkdirTemp(parent, "imgward-bench-survive-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for i := range nodes {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), []byte("x"), 0o600); err != nil {
			return err
		}
	}
	v := view{dir: dir, binary: binary()}
	if err := v.run(append([]string{"mount", "--log", dir + ".log", dir}, e.options...)...); err != nil {
		return err
	}
	defer os.Remove(dir + ".log")
	defer func() { _ = v.run("umount", dir) }()
	open, err := v.hold(nodes, handles)
	if err != nil {
		return err
	}
	defer closeAll(open)
	pauses, slowest, err := v.takeOvers(open[0], count, e)
	if err != nil {
		return err
	}
	slices.Sort(pauses)
	at := func(q float64) time.Duration {
		return pauses[int(q*float64(len(pauses)-1))].Round(100 * time.Microsecond)
	}
	fmt.Printf("| %d | %d | %s | %v | %v | %v | %v | %v | %s |\n", nodes, handles, e.name,
		at(0.5), at(0.9), at(0.99), at(1), slowest.Round(10*time.Microsecond), quiet.Load())
	return nil
}

func binary() string {
	if b := os.Getenv("IMGWARD"); b != "" {
		return b
	}
	return "bin/imgward"
}

type view struct{ dir, binary string }

func (v *view) run(args ...string) error {
	out, err := exec.Command(v.binary, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("imgward %v: %w: %s", args, err, out)
	}
	return nil
}

// worker is the pid of the worker that serves.
func (v *view) worker() (int, error) {
	out, err := exec.Command(v.binary, "status", "--json", v.dir).Output()
	if err != nil {
		return 0, err
	}
	var s struct{ PID int }
	return s.PID, json.NewDecoder(bytes.NewReader(out)).Decode(&s)
}

// hold looks up all files and opens some.
func (v *view) hold(nodes, handles int) (open []*os.File, err error) {
	for i := range nodes {
		name := filepath.Join(v.dir, fmt.Sprint("file", i))
		if i >= handles {
			var st unix.Stat_t
			if err := unix.Stat(name, &st); err != nil {
				return open, err
			}
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return open, err
		}
		open = append(open, f)
	}
	return open, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// takeOvers ends one worker after the other, and measures how long an answer takes meanwhile: to a name that does not
// exist, for the kernel keeps no negative answers of ours.
func (v *view) takeOvers(reader *os.File, count int, e end) (pauses []time.Duration, slowest time.Duration, err error) {
	stop, done := make(chan struct{}), make(chan time.Duration)
	go func() { done <- read(reader, stop) }()
	defer func() {
		close(stop)
		slowest = <-done
	}()
	for range count {
		time.Sleep(settle)
		pid, err := v.worker()
		if err != nil {
			return nil, 0, err
		}
		pause, err := e.pause(v, pid)
		if err != nil {
			return nil, 0, err
		}
		if now, err := v.worker(); err != nil || now == pid { // waits for the successor
			return nil, 0, fmt.Errorf("worker %d serves still (%v)", now, err)
		}
		pauses = append(pauses, pause)
	}
	return pauses, 0, nil
}

// pauseKilled is how long the first answer after a kill takes.
func pauseKilled(v *view, pid int) (time.Duration, error) {
	start := time.Now()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return 0, err
	}
	v.question("after a kill")
	return time.Since(start), nil
}

// pauseUpgraded is the longest that an answer takes during an upgrade.
func pauseUpgraded(v *view, _ int) (longest time.Duration, err error) {
	over := make(chan error)
	go func() { over <- v.run("upgrade", v.dir) }()
	for {
		select {
		case err := <-over:
			return longest, err
		default:
		}
		start := time.Now()
		v.question("in an upgrade")
		longest = max(longest, time.Since(start))
		time.Sleep(time.Millisecond) // leave the processors to those who are measured
	}
}

// question asks for a name that does not exist.
func (v *view) question(when string) {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(v.dir, "absent"), &st); err != unix.ENOENT {
		log.Fatalf("%s: %v, want ENOENT", when, err)
	}
}

// read reads one byte over and over and returns the longest time that took.
func read(f *os.File, stop chan struct{}) (slowest time.Duration) {
	var b [1]byte
	for {
		select {
		case <-stop:
			return slowest
		default:
		}
		start := time.Now()
		if _, err := f.ReadAt(b[:], 0); err != nil {
			log.Fatalf("a read failed while the worker was killed: %v", err)
		}
		slowest = max(slowest, time.Since(start))
		time.Sleep(200 * time.Microsecond)
	}
}

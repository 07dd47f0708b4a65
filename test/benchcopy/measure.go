// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sample is one run of one tool.
type sample struct {
	seconds float64
	cpu     float64 // user and system, in seconds
	rss     int64   // peak, in bytes
	blocks  int64   // allocated for the destination, in bytes
}

// result is all runs of one tool in one row.
type result struct {
	tool    tool
	samples []sample
}

// measureRow measures a row once with and once without durability, as it asks for.
func measureRow(ctx context.Context, c *config, v *volume, r row, sum *summary) error {
	src := v.path("source", false)
	if r.image != nil {
		if err := r.image(src); err != nil {
			return err
		}
		defer os.Remove(src)
	}
	if r.source != "" {
		if err := command("dd", "if="+src, "of="+r.source, "bs=1M", "oflag=direct", "conv=fsync", "status=none"); err != nil {
			return err
		}
		src = r.source
	}
	for _, durable := range r.durable {
		results := make([]result, len(r.tools))
		for i, t := range r.tools {
			results[i].tool = t
		}
		begun := time.Now()
		for round := range c.roundsOf(r) {
			if round >= fewestRounds && time.Since(begun) > c.budget {
				break
			}
			for k := range results {
				i := (k + round) % len(results) // nobody is always the one after the pause
				s, err := runOnce(ctx, v, r, src, results[i].tool, durable, round == 0)
				if err != nil {
					return fmt.Errorf("%s: %w", results[i].tool.name, err)
				}
				results[i].samples = append(results[i].samples, s)
			}
		}
		printTable(v.name, r.name, durable, results)
		sum.add(v.name, r.name, durable, results)
	}
	return nil
}

// runOnce copies once. The destination is made durable within the measured time if the tool has not done so itself.
func runOnce(ctx context.Context, v *volume, r row, src string, t tool, durable, check bool) (s sample, err error) {
	dst := v.path("destination", t.through)
	if r.target != "" {
		dst = r.target
	} else {
		defer func() { err = errors.Join(err, os.Remove(dst)) }()
	}
	if t.through {
		src = v.path("source", true)
	}
	err = errors.Join(v.sync(), warmth(src, r)) // nobody pays for the one before
	if err != nil {
		return s, err
	}
	if t.limit != nil {
		s.seconds, err = t.limit(dst)
		return s, err
	}
	args := t.command(src, dst, durable)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return s, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	if durable && !t.ours {
		if err := syncFile(dst); err != nil {
			return s, err
		}
	}
	s.seconds = time.Since(begun).Seconds()
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	s.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	s.rss = usage.Maxrss << 10
	if check && r.image != nil && !r.huge {
		if err := command("qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", src, dst); err != nil { // it reads no holes
			return s, errors.Join(errors.New("the copy differs"), err)
		}
	}
	if err := v.sync(); err != nil { // what is delayed is allocated now
		return s, err
	}
	s.blocks, err = allocated(dst)
	return s, err
}

// fewestRounds are what a median takes.
const fewestRounds = 3

// quickRounds is for what a context switch more or less decides.
const quickRounds = 31

func (c *config) roundsOf(r row) int {
	if r.quick {
		return max(c.rounds, quickRounds)
	}
	return c.rounds
}

// warmth brings the source's data into the page cache or out of it.
func warmth(src string, r row) error {
	if r.image == nil {
		return nil
	}
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	if r.cold {
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	buf := make([]byte, mib)
	for end := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil
		}
		if err == nil {
			end, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		}
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.NewSectionReader(f, data, end-data), buf)
		}
		if err != nil {
			return err
		}
	}
}

// syncFile makes the copy and its name durable.
func syncFile(name string) error {
	for _, n := range []string{name, filepath.Dir(name)} {
		f, err := os.Open(n)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func allocated(name string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}

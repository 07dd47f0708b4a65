package main

import (
	"context"
	"errors"
	"fmt"
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
		for round := range c.rounds {
			for i := range results {
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
		defer os.Remove(dst)
	}
	if t.through {
		src = v.path("source", true)
	}
	unix.Sync() // nobody pays for the one before
	if err := warmth(src, r.cold); err != nil && r.image != nil {
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
		if err := command("cmp", "-n", fmt.Sprint(sizeOf(src)), src, dst); err != nil {
			return s, errors.Join(errors.New("the copy differs"), err)
		}
	}
	unix.Sync()
	s.blocks, err = allocated(dst)
	return s, err
}

// warmth brings the source into the page cache or out of it.
func warmth(src string, cold bool) error {
	if !cold {
		return command("dd", "if="+src, "of=/dev/null", "bs=1M", "status=none", "count=8192")
	}
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
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

func sizeOf(name string) int64 {
	f, err := os.Open(name)
	if err != nil {
		return 0
	}
	defer f.Close()
	n, _ := f.Seek(0, 2)
	return n
}

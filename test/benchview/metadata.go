// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/smallfiles"
)

// metadataWorkloads make system calls as fast as one thread can.
func metadataWorkloads() []workload {
	return []workload{
		{name: "open for reading and close", unit: "/s", run: openClose(unix.O_RDONLY)},
		{name: "open for writing and close", unit: "/s", run: openClose(unix.O_RDWR)},
		{name: "create and unlink", unit: "/s", run: createUnlink},
		{name: "link and unlink", unit: "/s", run: linkUnlink},
		{name: "many small files", unit: "operations/s", run: manySmallFiles},
		{name: "stat, cold", unit: "files/s", run: statCold},
		{name: "stat, warm", unit: "files/s", asks: "fresh", run: statWarm},
		{name: "ls -lU, cold", unit: "files/s", run: listCold},
		{name: "ls -lU, warm", unit: "files/s", asks: "fresh", run: listWarm},
	}
}

// rate repeats an operation for the period and returns how often it went in a second.
func rate(ctx context.Context, cfg *config, op func() error) (done, error) {
	start := time.Now()
	for n := int64(0); ; n++ {
		// The clock is read every 64th time: it costs as much as a warm stat.
		if elapsed := time.Since(start); n%64 == 0 && elapsed >= cfg.period {
			return done{value: float64(n) / elapsed.Seconds(), ops: n}, ctx.Err()
		}
		if err := op(); err != nil {
			return done{}, err
		}
	}
}

// each is how often something went in a second that was done to n files since start.
func each(n int, start time.Time) done {
	return done{value: float64(n) / time.Since(start).Seconds(), ops: int64(n)}
}

func openClose(flags int) func(context.Context, *place, *config) (done, error) {
	return func(ctx context.Context, p *place, cfg *config) (done, error) {
		path := filepath.Join(p.dir, manyDir, manyName(0))
		return rate(ctx, cfg, func() error {
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})
	}
}

func createUnlink(ctx context.Context, p *place, cfg *config) (done, error) {
	path := filepath.Join(p.dir, "new.img")
	return rate(ctx, cfg, func() error {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
		return unix.Unlink(path)
	})
}

func linkUnlink(ctx context.Context, p *place, cfg *config) (done, error) {
	path, link := filepath.Join(p.dir, manyDir, manyName(0)), filepath.Join(p.dir, "link.img")
	return rate(ctx, cfg, func() error {
		if err := unix.Link(path, link); err != nil {
			return err
		}
		return unix.Unlink(link)
	})
}

// manySmallFiles is so much work that it takes a second natively. It leaves nothing: each round finds what the first found.
func manySmallFiles(ctx context.Context, p *place, _ *config) (done, error) {
	const workers, operations = 20, 1000
	dir, err := os.MkdirTemp(p.dir, "small-")
	if err != nil {
		return done{}, err
	}
	start := time.Now()
	n, err := smallfiles.Run(ctx, dir, workers, operations)
	d := each(n, start)
	return d, errors.Join(err, os.RemoveAll(dir))
}

// statAll looks at every file once.
func statAll(p *place, cfg *config) (done, error) {
	dir, err := unix.Open(filepath.Join(p.dir, manyDir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return done{}, err
	}
	defer unix.Close(dir)
	start := time.Now()
	for i := range cfg.files {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, manyName(i), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return done{}, err
		}
	}
	return each(cfg.files, start), nil
}

func statCold(_ context.Context, p *place, cfg *config) (done, error) {
	if err := forget(); err != nil {
		return done{}, err
	}
	return statAll(p, cfg)
}

// statWarm comes within a moment of another look at the same files.
func statWarm(_ context.Context, p *place, cfg *config) (done, error) {
	if _, err := statAll(p, cfg); err != nil {
		return done{}, err
	}
	return statAll(p, cfg)
}

func list(ctx context.Context, dir string, files int) (done, error) {
	start := time.Now()
	out, err := exec.CommandContext(ctx, "ls", "-lU", dir).Output()
	if err != nil {
		return done{}, fmt.Errorf("ls -lU: %w", err)
	}
	if lines := bytes.Count(out, []byte("\n")); lines != files+1 {
		return done{}, fmt.Errorf("ls -lU printed %d lines for %d files", lines, files)
	}
	return each(files, start), nil
}

func listCold(ctx context.Context, p *place, cfg *config) (done, error) {
	if err := forget(); err != nil {
		return done{}, err
	}
	return list(ctx, filepath.Join(p.dir, manyDir), cfg.files)
}

func listWarm(ctx context.Context, p *place, cfg *config) (done, error) {
	if _, err := list(ctx, filepath.Join(p.dir, manyDir), cfg.files); err != nil {
		return done{}, err
	}
	return list(ctx, filepath.Join(p.dir, manyDir), cfg.files)
}

// crowd has a daemon know many files.
func crowd(ctx context.Context, p *place, cfg *config) error {
	dir := filepath.Join(p.mount.Backing, crowdDir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range cfg.crowd {
		if err := unix.Mknod(filepath.Join(dir, manyName(i)), unix.S_IFREG|0o644, 0); err != nil {
			return err
		}
	}
	_, err := list(ctx, filepath.Join(p.dir, crowdDir), cfg.crowd)
	return err
}

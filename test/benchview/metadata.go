package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// metadataWorkloads make system calls as fast as one thread can.
func metadataWorkloads() []workload {
	return []workload{
		{name: "open and close", unit: "/s", run: openClose},
		{name: "create and unlink", unit: "/s", run: createUnlink},
		{name: "stat, cold", unit: "files/s", run: statCold},
		{name: "stat, warm", unit: "files/s", run: statWarm},
		{name: "ls -l, cold", unit: "files/s", run: listCold},
		{name: "ls -l, warm", unit: "files/s", run: listWarm},
	}
}

// rate repeats an operation for the period and returns how often it went in a second.
func rate(ctx context.Context, cfg *config, op func() error) (float64, int64, error) {
	start := time.Now()
	for n := 0; ; n++ {
		// The clock is read every 64th time: it costs as much as a warm stat.
		if elapsed := time.Since(start); n%64 == 0 && elapsed >= cfg.period {
			return float64(n) / elapsed.Seconds(), 0, ctx.Err()
		}
		if err := op(); err != nil {
			return 0, 0, err
		}
	}
}

func openClose(ctx context.Context, p *place, cfg *config) (float64, int64, error) {
	path := filepath.Join(p.dir, manyDir, manyName(0))
	return rate(ctx, cfg, func() error {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
}

func createUnlink(ctx context.Context, p *place, cfg *config) (float64, int64, error) {
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

// statAll looks at every file once.
func statAll(p *place, cfg *config) (float64, int64, error) {
	dir, err := unix.Open(filepath.Join(p.dir, manyDir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(dir)
	start := time.Now()
	for i := range cfg.files {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, manyName(i), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return 0, 0, err
		}
	}
	return float64(cfg.files) / time.Since(start).Seconds(), 0, nil
}

func statCold(_ context.Context, p *place, cfg *config) (float64, int64, error) {
	if err := forget(); err != nil {
		return 0, 0, err
	}
	return statAll(p, cfg)
}

// statWarm comes within a moment of another look at the same files.
func statWarm(_ context.Context, p *place, cfg *config) (float64, int64, error) {
	if _, _, err := statAll(p, cfg); err != nil {
		return 0, 0, err
	}
	return statAll(p, cfg)
}

func list(ctx context.Context, p *place, cfg *config) (float64, int64, error) {
	start := time.Now()
	out, err := exec.CommandContext(ctx, "ls", "-l", filepath.Join(p.dir, manyDir)).Output()
	if err != nil {
		return 0, 0, fmt.Errorf("ls -l: %w", err)
	}
	if len(out) < cfg.files {
		return 0, 0, fmt.Errorf("ls -l printed %d bytes for %d files", len(out), cfg.files)
	}
	return float64(cfg.files) / time.Since(start).Seconds(), 0, nil
}

func listCold(ctx context.Context, p *place, cfg *config) (float64, int64, error) {
	if err := forget(); err != nil {
		return 0, 0, err
	}
	return list(ctx, p, cfg)
}

func listWarm(ctx context.Context, p *place, cfg *config) (float64, int64, error) {
	if _, _, err := list(ctx, p, cfg); err != nil {
		return 0, 0, err
	}
	return list(ctx, p, cfg)
}

// SPDX-License-Identifier: Apache-2.0

// Command benchcopy measures imgcp against cp, dd, qemu-img, nbdcopy and ddrescue on ext4, XFS and btrfs.
//
// Runs are interleaved (every tool once, then every tool again), so that a noisy neighbour spoils a round and not a tool;
// the medians are printed as Markdown tables with the ratio of imgcp's time to each tool's: below 1.00 imgcp is faster.
// A summary at the end has imgcp ÷ the best peer for every row.
//
// The file systems lie on loop devices over memory, so that a disk that is somebody else's as well decides nothing;
// -dir /var/tmp takes a disk. SCALE=n makes the images an n-th. It needs root, for loop devices.
//
//	go run ./test/benchcopy [-rounds 5] [-rows dense,comb] [-fs ext4,xfs] [-dir /var/tmp] [-budget 1m]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchcopy:", err)
		os.Exit(1)
	}
}

// config is the command line and the environment.
type config struct {
	imgcp, imgward string
	rounds         int
	budget         time.Duration
	rows, fs       []string
	scale          int64 // sizes are divided by this
}

func bench(ctx context.Context) error {
	var c config
	var rows, fs, dir string
	flag.StringVar(&c.imgcp, "imgcp", "bin/imgcp", "the imgcp to measure")
	flag.StringVar(&c.imgward, "imgward", "bin/imgward", "the imgward to mount the view with; empty: no rows through the view")
	flag.IntVar(&c.rounds, "rounds", 5, "how often each tool runs")
	flag.DurationVar(&c.budget, "budget", 45*time.Second, "how long a table may take, after three rounds")
	flag.StringVar(&rows, "rows", "", "only these rows, by name")
	flag.StringVar(&fs, "fs", "ext4,xfs,btrfs", "file systems")
	flag.StringVar(&dir, "dir", "/dev/shm", "where the file systems' image files go; on tmpfs they are memory")
	flag.Parse()
	var err error
	if c.scale, err = scale(); err != nil {
		return err
	}
	c.fs = strings.Split(fs, ",")
	if rows != "" {
		c.rows = strings.Split(rows, ",")
	}
	if err := c.known(); err != nil {
		return err
	}
	for _, path := range []*string{&c.imgcp, &c.imgward} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	var sum summary
	defer sum.print() // also of what was measured before an interruption
	for _, fs := range c.fs {
		if benchErr := benchOn(ctx, &c, fs, dir, &sum); benchErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", fs, benchErr))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// known refuses names of rows that are none: half an hour later nobody would miss them.
func (c *config) known() error {
	var names []string
	for _, r := range slices.Concat(rows(c, &volume{}), deviceRows(c, ""), []row{viewRow(c)}) {
		names = append(names, r.name)
	}
	for _, name := range c.rows {
		if !slices.Contains(names, name) {
			return fmt.Errorf("-rows: there is no row %s; there are %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

// scale is what the environment divides the sizes by.
func scale() (int64, error) {
	text := os.Getenv("SCALE")
	if text == "" {
		return 1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("SCALE=%s: a whole number is needed", text)
	}
	return n, nil
}

// benchOn measures every row on one file system, made and removed here. One that fails does not stop the others.
func benchOn(ctx context.Context, c *config, fs, dir string, sum *summary) (err error) {
	v, err := makeVolume(fs, dir, volumeSize/c.scale+gib)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.remove()) }()
	all := rows(c, v)
	if c.wants("to-device") || c.wants("from-device") {
		if err := v.addDevice(deviceSize / c.scale); err != nil {
			return err
		}
		all = append(all, deviceRows(c, v.spare)...)
	}
	if c.imgward != "" && c.wants("view") {
		if err := v.addView(c.imgward); err != nil {
			return err
		}
		all = append(all, viewRow(c))
	}
	for _, r := range all {
		if !c.wants(r.name) {
			continue
		}
		if rowErr := measureRow(ctx, c, v, r, sum); rowErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", r.name, rowErr))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

func (c *config) wants(row string) bool { return len(c.rows) == 0 || slices.Contains(c.rows, row) }

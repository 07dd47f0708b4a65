// Command benchcopy measures imgcp against cp, dd, qemu-img, nbdcopy and ddrescue on ext4, XFS and btrfs.
//
// Runs are interleaved (every tool once, then every tool again), so that a noisy neighbour spoils a round and not a tool;
// the medians are printed as a Markdown table with the ratio of the best peer's time to imgcp's: above 1.00 imgcp is
// faster. Sizes are a sixteenth of the full ones unless FULL=1. It needs root, for loop devices.
//
//	benchcopy -imgcp ./imgcp [-rounds 5] [-rows dense,comb] [-fs ext4,xfs] [-dir /var/tmp]
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if err := bench(); err != nil {
		fmt.Fprintln(os.Stderr, "benchcopy:", err)
		os.Exit(1)
	}
}

// config is the command line and the environment.
type config struct {
	imgcp, imgward string
	rounds         int
	rows, fs       []string
	scale          int64 // full sizes are divided by this
}

func bench() error {
	var c config
	var rows, fs, dir string
	flag.StringVar(&c.imgcp, "imgcp", "", "the imgcp to measure")
	flag.StringVar(&c.imgward, "imgward", "", "the imgward to mount the view with; empty: no rows through the view")
	flag.IntVar(&c.rounds, "rounds", 5, "how often each tool runs")
	flag.StringVar(&rows, "rows", "", "only these rows, by name")
	flag.StringVar(&fs, "fs", "ext4,xfs,btrfs", "file systems")
	flag.StringVar(&dir, "dir", "/var/tmp", "where the file systems' image files go")
	flag.Parse()
	c.scale = 16
	if os.Getenv("FULL") == "1" {
		c.scale = 1
	}
	c.fs = strings.Split(fs, ",")
	if rows != "" {
		c.rows = strings.Split(rows, ",")
	}
	var err error
	if c.imgcp, err = filepath.Abs(c.imgcp); err != nil {
		return err
	}
	for _, fs := range c.fs {
		if err := benchOn(&c, fs, dir); err != nil {
			return fmt.Errorf("%s: %w", fs, err)
		}
	}
	return nil
}

// benchOn measures every row on one file system, made and removed here.
func benchOn(c *config, fs, dir string) error {
	v, err := makeVolume(fs, dir, volumeSize/c.scale+(4<<30))
	if err != nil {
		return err
	}
	defer v.remove()
	for _, r := range rows(c, v) {
		if len(c.rows) > 0 && !slices.Contains(c.rows, r.name) {
			continue
		}
		if err := measureRow(c, v, r); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

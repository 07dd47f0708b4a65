// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// fioWorkloads move data. Random ones count operations, sequential ones megabytes.
func fioWorkloads() []workload {
	// Without invalidate=0 fio drops the file's pages first (fadvise), which reaches the page cache natively and not
	// through a view: buffered writes then look 2 to 5 times as fast through the view as on the disk below.
	const (
		random     = "--bs=4k --ioengine=libaio --direct=1 --norandommap=1 --randrepeat=0"
		sequential = "--bs=1M --ioengine=psync"
	)
	return []workload{
		fio("4k random read, depth 1", "IOPS", "direct", "--rw=randread --iodepth=1 "+random),
		fio("4k random read, depth 32", "IOPS", "direct", "--rw=randread --iodepth=32 "+random),
		fio("4k random write, depth 1", "IOPS", "direct", "--rw=randwrite --iodepth=1 "+random),
		fio("4k random write, depth 32", "IOPS", "direct", "--rw=randwrite --iodepth=32 "+random),
		fio("1M sequential read, direct", "MB/s", "direct", "--rw=read --direct=1 "+sequential),
		fio("1M sequential write, direct", "MB/s", "direct", "--rw=write --direct=1 "+sequential),
		fio("1M sequential read, buffered", "MB/s", "", "--rw=read "+sequential),
		fio("1M sequential write, buffered", "MB/s", "sync", "--rw=write --end_fsync=1 "+sequential),
		fio("4k write with fsync", "IOPS", "sync", "--rw=write --bs=4k --ioengine=psync --fsync=1"),
	}
}

// report is the part of fio's JSON that is read here.
type report struct {
	Jobs []struct{ Read, Write stream }
}

type stream struct {
	IOPS      float64 `json:"iops"`
	Bandwidth int64   `json:"bw_bytes"`
	Bytes     int64   `json:"io_bytes"`
}

func fio(name, unit, asks, options string) workload {
	run := func(ctx context.Context, p *place, cfg *config) (done, error) {
		args := append(strings.Fields(options),
			"--name=job", "--filename="+filepath.Join(p.dir, dataFile), "--output-format=json", "--time_based", "--invalidate=0",
			fmt.Sprintf("--size=%dM", cfg.size), fmt.Sprintf("--runtime=%d", int(cfg.period.Seconds())))
		out, err := exec.CommandContext(ctx, "fio", args...).Output()
		if err != nil {
			first, _, _ := strings.Cut(string(out), "\n")
			return done{}, fmt.Errorf("fio %s: %w: %s", options, err, first)
		}
		var r report
		// A note may come before the JSON.
		_, object, _ := strings.Cut(string(out), "{")
		if err := json.Unmarshal([]byte("{"+object), &r); err != nil || len(r.Jobs) != 1 {
			return done{}, fmt.Errorf("fio printed what is no report (%w):\n%s", err, out)
		}
		s := r.Jobs[0].Read
		if s.Bytes == 0 {
			s = r.Jobs[0].Write
		}
		if unit == "IOPS" {
			return done{value: s.IOPS, bytes: s.Bytes}, nil
		}
		return done{value: float64(s.Bandwidth) / 1e6, bytes: s.Bytes}, nil
	}
	return workload{name: name, unit: unit, asks: asks, moves: true, run: run}
}

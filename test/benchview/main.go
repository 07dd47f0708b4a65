// SPDX-License-Identifier: Apache-2.0

// Command benchview measures the view against the native directory and against other FUSE file systems.
//
// All of them show directories of one disk, side by side, and each round runs a workload on one after the other, so
// that what else happens on the machine hits all alike. It prints the median of the rounds, as Markdown.
//
//	go run ./test/benchview
//
// The environment sets sizes (defaults in brackets; a run takes ten minutes on an idle machine):
//
//	BENCH_DIR      where: a directory on the disk to measure [the temporary directory]
//	BENCH_ROUNDS   rounds [3]
//	BENCH_SECONDS  of each fio run and each rate [1]
//	BENCH_SIZE     of the file that fio works on, in MiB [256]
//	BENCH_FILES    in the directory that is listed [10000]
//	BENCH_CROWD    files that the view has listed when its memory is looked at; 0: not at all [100000]
//	BENCH_ONLY     names of places, comma-separated [see peers; also mergerfs, passthrough; native is always there]
//	BENCH_WORK     parts of the names of workloads, comma-separated [all]
//	IMGWARD        the binary to measure [built from this tree]
//
// BENCH_CROWD=0 BENCH_ONLY=view,bindfs BENCH_WORK='open for' is half a minute, say.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/conformance/target"
)

func main() {
	os.Exit(target.Isolated(bench))
}

func bench() int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	// A signal ends the run after the operation under way, and the mounts with it.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, log); err != nil {
		log.Error("benchview", "error", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, log *slog.Logger) error {
	cfg, err := readConfig()
	if err != nil {
		return err
	}
	places, err := openPlaces(ctx, cfg, log)
	defer closePlaces(places, log)
	if err != nil {
		return err
	}
	results, err := measure(ctx, cfg, places, log)
	if err != nil {
		return err
	}
	results.print(os.Stdout, places)
	return nil
}

// config is what the environment says.
type config struct {
	dir    string
	rounds int
	period time.Duration // of each fio run and each rate
	size   int           // MiB
	files  int
	crowd  int
	only   []string
	work   []string
}

// peers are compared if nothing else is asked for.
const peers = "view,view-nopassthrough,bindfs,go-fuse-loopback,passthrough_hp,passthrough_ll"

func readConfig() (*config, error) {
	cfg := &config{dir: os.Getenv("BENCH_DIR"), work: strings.Split(os.Getenv("BENCH_WORK"), ",")}
	if cfg.dir == "" {
		cfg.dir = os.TempDir()
	}
	only := os.Getenv("BENCH_ONLY")
	if only == "" {
		only = peers
	}
	cfg.only = strings.Split(only, ",")
	seconds := 0
	for _, v := range []struct {
		name  string
		value *int
		unset int
	}{
		{"BENCH_ROUNDS", &cfg.rounds, 3},
		{"BENCH_SECONDS", &seconds, 1},
		{"BENCH_SIZE", &cfg.size, 256},
		{"BENCH_FILES", &cfg.files, 10000},
		{"BENCH_CROWD", &cfg.crowd, 100000},
	} {
		*v.value = v.unset
		text := os.Getenv(v.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n == 0 && v.value != &cfg.crowd {
			return nil, fmt.Errorf("%s=%q: want a number above 0", v.name, text)
		}
		*v.value = n
	}
	cfg.period = time.Duration(seconds) * time.Second
	return cfg, nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"imgward/test/conformance/target"
	"imgward/test/quiet"
)

// workload is one thing to measure.
type workload struct {
	name string
	unit string // of the value; more is better
	// asks is what a file system must really do for it: "direct", "sync", "fresh" or nothing of the kind.
	asks string
	// moves: it is about data, and so about whether the kernel passes reads and writes through.
	moves bool
	// run works on a place for about a period.
	run func(ctx context.Context, p *place, cfg *config) (done, error)
}

// done is what a run came to. Of metadata operations are counted, of data bytes.
type done struct {
	value      float64
	bytes, ops int64
}

func workloads() []workload {
	return append(append(fioWorkloads(), metadataWorkloads()...), floodWorkloads()...)
}

// sample is what one run brought.
type sample struct {
	done
	round int
	cpu   time.Duration // of the daemon
}

// measure runs every workload on every place, round by round.
func measure(ctx context.Context, cfg *config, places []*place, log *slog.Logger) (*results, error) {
	r := &results{samples: map[string]map[string][]sample{}, memory: map[string]memory{}, crowd: cfg.crowd, crowded: map[string]memory{}, loadBefore: quiet.Load(), load: map[string]string{}}
	for _, w := range workloads() {
		if !slices.ContainsFunc(cfg.work, func(part string) bool { return strings.Contains(w.name, part) }) {
			continue
		}
		r.workloads = append(r.workloads, w)
		r.samples[w.name] = map[string][]sample{}
		log.Info("measuring", "workload", w.name)
		for round := range cfg.rounds {
			for _, p := range places {
				s, err := runOne(ctx, w, p, cfg)
				if err != nil {
					err = fmt.Errorf("%s on %s: %w", w.name, p.name, err)
					if ctx.Err() != nil || p.ours() {
						return nil, err
					}
					// libfuse's passthrough, for one, cannot do direct I/O. It gets a dash.
					log.Warn("left out", "error", err)
					continue
				}
				s.round = round
				r.samples[w.name][p.name] = append(r.samples[w.name][p.name], s)
			}
		}
		r.load[w.name] = quiet.Load()
	}
	for _, p := range places {
		if p.mount == nil {
			continue
		}
		r.memory[p.name] = memoryOf(p.mount)
		if cfg.crowd > 0 && p.ours() {
			log.Info("memory", "place", p.name, "files", cfg.crowd)
			if err := crowd(ctx, p, cfg); err != nil {
				return nil, fmt.Errorf("list %d files on %s: %w", cfg.crowd, p.name, err)
			}
			r.crowded[p.name] = memoryOf(p.mount)
		}
	}
	return r, nil
}

func runOne(ctx context.Context, w workload, p *place, cfg *config) (sample, error) {
	if err := ctx.Err(); err != nil {
		return sample{}, err
	}
	var before, after target.Cost
	if p.mount != nil {
		before = p.mount.Cost()
	}
	d, err := w.run(ctx, p, cfg)
	if p.mount != nil {
		after = p.mount.Cost()
	}
	return sample{done: d, cpu: after.CPU - before.CPU}, err
}

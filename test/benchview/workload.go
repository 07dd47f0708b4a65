package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"imgward/test/conformance/target"
)

// workload is one thing to measure.
type workload struct {
	name string
	unit string // of the value; more is better
	// asks is what a file system must really do for it: "direct", "sync" or nothing of the kind.
	asks string
	// run works on a place for about a period. bytes is how much data went through; 0 for metadata.
	run func(ctx context.Context, p *place, cfg *config) (value float64, bytes int64, err error)
}

func workloads() []workload {
	return append(append(fioWorkloads(), metadataWorkloads()...), floodWorkloads()...)
}

// sample is what one run brought.
type sample struct {
	round int
	value float64
	bytes int64
	cpu   time.Duration // of the daemon
}

// measure runs every workload on every place, round by round.
func measure(ctx context.Context, cfg *config, places []*place, log *slog.Logger) (*results, error) {
	r := &results{samples: map[string]map[string][]sample{}, rss: map[string]int64{}, loadBefore: load()}
	for _, w := range workloads() {
		if !strings.Contains(w.name, cfg.pattern) {
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
	}
	for _, p := range places {
		if p.mount != nil {
			r.rss[p.name] = p.mount.Cost().RSS
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
	value, bytes, err := w.run(ctx, p, cfg)
	if p.mount != nil {
		after = p.mount.Cost()
	}
	return sample{value: value, bytes: bytes, cpu: after.CPU - before.CPU}, err
}

// SPDX-License-Identifier: Apache-2.0

// Package metrics turns a view's figures into Prometheus metrics. docs/metrics.md lists them; a test keeps the two equal.
package metrics

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	viewfs "imgward/fs"
	"imgward/guard"
)

// View is what the figures are taken from; *viewfs.FS implements it.
type View interface {
	Stats() viewfs.Stats
	Images(ctx context.Context) []viewfs.Image
	Passthrough() bool
}

// Guard is the other half; *guard.Guard implements it.
type Guard interface {
	Counters() guard.Counters
	Exceptions() []guard.Exception
	Status(ctx context.Context) (guard.Status, error)
}

// Mount is what the mount table says of the view.
type Mount interface {
	Reachable() bool
	Below() int
}

// Source is a view whose metrics are asked for.
type Source struct {
	Mountpoint, Version string
	View                View
	Guard               Guard
	Mount               Mount
	// PolicyFault is why the policy file that is there is not in force; nil if it is.
	PolicyFault func() error
}

// scrapeTimeout bounds the reading of evidence for one scrape; Prometheus gives up after ten seconds by default.
const scrapeTimeout = 5 * time.Second

// Handler answers GET /metrics.
func Handler(s *Source) (http.Handler, error) {
	r := prometheus.NewPedanticRegistry()
	view := prometheus.WrapRegistererWith(prometheus.Labels{"view": s.Mountpoint}, r)
	for _, c := range []prometheus.Collector{
		&collector{s},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := view.Register(c); err != nil {
			return nil, err
		}
	}
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4}), nil
}

// collector reads all figures at each scrape; nothing is kept.
type collector struct{ *Source }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(buildInfo, 1, c.Version)
	c.view(gauge, count)
	c.decisions(ch, count)
	c.evidence(ctx, gauge)
	gauge(exceptionsActive, float64(len(c.Guard.Exceptions())))
	gauge(policyValid, flag(c.PolicyFault() == nil))
}

type emit func(d *prometheus.Desc, v float64, labels ...string)

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c *collector) view(gauge, count emit) {
	st := c.View.Stats()
	gauge(passthrough, flag(c.View.Passthrough()))
	gauge(openFiles, float64(st.Passed), "passthrough")
	gauge(openFiles, float64(st.Daemon), "daemon")
	gauge(nodes, float64(st.Nodes))
	gauge(handles, float64(st.Handles))
	gauge(descriptors, float64(st.Descriptors))
	gauge(mounted, float64(st.Mounted.UnixNano())/1e9)
	gauge(reachable, flag(c.Mount.Reachable()))
	gauge(mountsBelow, float64(c.Mount.Below()))
	gauge(serving, float64(st.Serving.UnixNano())/1e9)
	if st.LastPause > 0 {
		gauge(pause, st.LastPause.Seconds())
	}
	count(takeovers, float64(st.Generation-1))
}

func (c *collector) decisions(ch chan<- prometheus.Metric, count emit) {
	n := c.Guard.Counters()
	count(decisions, float64(n.Allowed), "allowed")
	count(decisions, float64(n.Denied), "refused")
	count(decisions, float64(n.Audited), "audited")
	count(decisions, float64(n.Excepted), "excepted")
	count(unexplained, float64(n.Unexplained))
	c.refusals(n.Refusals, count)
	ch <- latency(&n)
}

// refusals gives a counter for each operation, from the first scrape on: Prometheus cannot tell a counter that is born with
// its first refusal from one that has stood at 1 for long, and so an alert would sleep through the first refusal.
func (c *collector) refusals(by map[guard.RefusalKey]uint64, count emit) {
	mode := map[bool]string{false: "enforce", true: "audit"}
	type key struct {
		op    guard.Op
		audit bool
	}
	sums := map[key]uint64{}
	for k, v := range by {
		sums[key{k.Op, k.Audit}] += v
		count(domainRefusals, float64(v), string(k.Op), k.Domain, string(k.Class), mode[k.Audit])
	}
	for _, op := range guard.Ops() {
		for _, audit := range []bool{false, true} {
			count(refusals, float64(sums[key{op, audit}]), string(op), mode[audit])
		}
	}
}

// latency makes a histogram of the guard's own buckets.
func latency(n *guard.Counters) prometheus.Metric {
	buckets := make(map[float64]uint64, len(guard.LatencyBounds))
	var below uint64
	for i, bound := range guard.LatencyBounds {
		below += n.Latency[i]
		buckets[bound.Seconds()] = below
	}
	total := below + n.Latency[len(guard.LatencyBounds)]
	return prometheus.MustNewConstHistogram(decisionSeconds, total, n.LatencySum.Seconds(), buckets)
}

func (c *collector) evidence(ctx context.Context, gauge emit) {
	images := c.View.Images(ctx)
	sources := map[guard.Evidence]int{}
	for _, img := range images {
		for _, u := range img.Uses {
			sources[u.Evidence]++
		}
	}
	gauge(imagesInUse, float64(len(images)))
	for _, e := range evidence {
		gauge(uses, float64(sources[e]), string(e))
	}
	st, err := c.Guard.Status(ctx)
	gauge(evidenceUp, flag(err == nil))
	gauge(domainsRunning, float64(st.Running))
	gauge(domainsStale, float64(len(st.Stale)))
	blind := 0
	for _, p := range st.Problems {
		if p.Blind {
			blind++
		}
	}
	gauge(unreadable, float64(len(st.Problems)-blind), "false")
	gauge(unreadable, float64(blind), "true")
}

// evidence are the sources that are always shown, so that a graph does not begin in the middle.
var evidence = [...]guard.Evidence{
	guard.EvidenceLibvirt, guard.EvidenceView, guard.EvidenceProcess, guard.EvidenceLock, guard.EvidenceChain, guard.EvidencePolicy,
	guard.EvidenceSaved,
}

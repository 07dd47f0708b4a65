// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	viewfs "imgward/fs"
	"imgward/guard"
	"imgward/guard/libvirt"
)

type fakeView struct{ pause time.Duration }

func (v fakeView) Stats() viewfs.Stats {
	return viewfs.Stats{Generation: 3, Mounted: time.Unix(1000, 0), Serving: time.Unix(2000, 0), LastPause: v.pause, Nodes: 7, Passed: 2, Daemon: 1}
}
func (fakeView) Passthrough() bool { return true }
func (fakeView) Images(context.Context) []viewfs.Image {
	return []viewfs.Image{{Path: "a", Uses: []guard.Use{{Evidence: guard.EvidenceLibvirt}, {Evidence: guard.EvidenceChain}}}}
}

type fakeGuard struct{}

func (fakeGuard) Exceptions() []guard.Exception { return make([]guard.Exception, 2) }
func (fakeGuard) Status(context.Context) (guard.Status, error) {
	return guard.Status{Running: 5, Stale: []string{"x"}, Problems: []libvirt.Problem{{Blind: true}, {}, {}}}, nil
}
func (fakeGuard) Counters() guard.Counters {
	c := guard.Counters{Allowed: 10, Denied: 4, LatencySum: time.Second, Refusals: map[guard.RefusalKey]uint64{
		{Op: guard.OpTruncate, Domain: "na\"me\n", Class: guard.ClassOutsider}:        4,
		{Op: guard.OpUnlink, Domain: "rhevm", Class: guard.ClassManager, Audit: true}: 1,
	}}
	c.Latency[0], c.Latency[len(c.Latency)-1] = 3, 1
	return c
}

type fakeMount struct{}

func (fakeMount) Reachable() bool { return true }
func (fakeMount) Below() int      { return 0 }

func scrape(t *testing.T) string {
	t.Helper()
	return scrapeView(t, fakeView{20 * time.Millisecond})
}

func scrapeView(t *testing.T, view fakeView) string {
	t.Helper()
	h, err := Handler(&Source{
		Mountpoint: "/images", Version: "v1", View: view, Guard: fakeGuard{}, Mount: fakeMount{},
		PolicyFault: func() error { return errors.New("a mistake") },
	})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	body := scrape(t)
	for _, want := range []string{
		`imgward_domain_refusals_total{caller="outsider",domain="na\"me\n",mode="enforce",op="truncate",view="/images"} 4`,
		`imgward_domain_refusals_total{caller="manager",domain="rhevm",mode="audit",op="unlink",view="/images"} 1`,
		`imgward_refusals_total{mode="enforce",op="truncate",view="/images"} 4`,
		`imgward_refusals_total{mode="audit",op="unlink",view="/images"} 1`,
		`imgward_refusals_total{mode="enforce",op="unlink",view="/images"} 0`,
		`imgward_refusals_total{mode="audit",op="rename-dir",view="/images"} 0`,
		`imgward_serving_time_seconds{view="/images"} 2000`,
		`imgward_decision_duration_seconds_bucket{view="/images",le="5e-06"} 3`,
		`imgward_decision_duration_seconds_bucket{view="/images",le="1"} 3`,
		`imgward_decision_duration_seconds_bucket{view="/images",le="+Inf"} 4`,
		`imgward_decision_duration_seconds_sum{view="/images"} 1`,
		`imgward_takeovers_total{view="/images"} 2`,
		`imgward_takeover_last_pause_seconds{view="/images"} 0.02`,
		`imgward_image_uses{evidence="chain",view="/images"} 1`,
		`imgward_image_uses{evidence="lock",view="/images"} 0`,
		`imgward_status_files_unreadable{blind="true",view="/images"} 1`,
		`imgward_status_files_unreadable{blind="false",view="/images"} 2`,
		`imgward_open_files{path="daemon",view="/images"} 1`,
		`imgward_exceptions_active{view="/images"} 2`,
		`imgward_policy_file_valid{view="/images"} 0`,
		`imgward_build_info{version="v1",view="/images"} 1`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
}

// A pause that nobody measured is no pause of 0.
func TestUnknownPause(t *testing.T) {
	if body := scrapeView(t, fakeView{}); strings.Contains(body, "imgward_takeover_last_pause_seconds") {
		t.Error("an unknown pause is given as one")
	}
}

// What promtool would find fault with: a counter without _total, anything else with it, help without text.
func TestNames(t *testing.T) {
	kind := regexp.MustCompile(`(?m)^# TYPE (imgward_\S+) (\S+)$`)
	found := kind.FindAllStringSubmatch(scrape(t), -1)
	if len(found) != len(all) {
		t.Errorf("%d metrics are described, %d are given", len(all), len(found))
	}
	for _, m := range found {
		if total := strings.HasSuffix(m[1], "_total"); total != (m[2] == "counter") {
			t.Errorf("%s is a %s", m[1], m[2])
		}
	}
}

// The manual, the alerts and the dashboard speak of metrics that exist, and the manual of all of them.
func TestDocumented(t *testing.T) {
	given := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (imgward_\S+)`).FindAllStringSubmatch(scrape(t), -1) {
		given[m[1]] = true
	}
	for _, name := range []string{viewUp, collected} {
		given[name] = true // of a host, not of a view
	}
	for _, file := range []string{"docs/metrics.md", "dist/prometheus/imgward.rules.yml", "dist/grafana/imgward.json"} {
		text, err := os.ReadFile("../../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		named := map[string]bool{}
		for _, name := range regexp.MustCompile(`\bimgward_[a-z_]+`).FindAllString(string(text), -1) {
			name = strings.TrimSuffix(name, "_bucket")
			named[name] = true
			if !given[name] {
				t.Errorf("%s speaks of %s, which does not exist", file, name)
			}
		}
		for name := range given {
			if file == "docs/metrics.md" && !named[name] {
				t.Errorf("%s leaves out %s", file, name)
			}
		}
	}
}

func TestOnlyLoopback(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:9750": true, "[::1]:9750": true,
		"0.0.0.0:9750": false, ":9750": false, "localhost:9750": false, "192.0.2.1:1": false, "127.0.0.1": false, "[::ffff:10.0.0.1]:1": false,
	} {
		if err := CheckAddress(address); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// A host's text has each family once, says which views are there and which ought to be, and leaves out what node_exporter
// says of itself.
func TestHost(t *testing.T) {
	h := NewHost(time.Unix(3000, 0))
	if err := h.Add("/images", []byte(scrape(t))); err != nil {
		t.Fatal(err)
	}
	other := strings.ReplaceAll(scrape(t), `view="/images"`, `view="/other"`)
	if err := h.Add("/other", []byte(other)); err != nil {
		t.Fatal(err)
	}
	if err := h.Add("/gone", nil); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if _, err := h.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`imgward_view_up{view="/images"} 1`, `imgward_view_up{view="/other"} 1`, `imgward_view_up{view="/gone"} 0`,
		`imgward_collected_time_seconds 3000`, `imgward_takeovers_total{view="/images"} 2`, `imgward_takeovers_total{view="/other"} 2`,
		`imgward_decision_duration_seconds_count{view="/other"} 4`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("missing: %s in\n%s", want, b.String())
		}
	}
	if n := strings.Count(b.String(), "# TYPE imgward_takeovers_total "); n != 1 {
		t.Errorf("one family is told of %d times", n)
	}
	if strings.Contains(b.String(), "go_goroutines") {
		t.Error("it has what node_exporter says of itself")
	}
	if err := h.Add("/broken", []byte("imgward_x{ 1")); err == nil {
		t.Error("a text that is none is taken")
	}
}

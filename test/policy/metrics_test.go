// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imgward/cmd/imgward/control"
)

// scrape asks a view for its metrics.
func (v *view) scrape(t *testing.T) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", control.Socket(v.dir))
	}}}
	defer c.CloseIdleConnections()
	res, err := c.Get("http://imgward/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", res.Status, err)
	}
	return string(text)
}

// promtool has nothing against the metrics, the alert rules ask for metrics that there are, and so does the dashboard.
func TestPromtool(t *testing.T) {
	v := mount(t, allAlways+"[[rule]]\npaths = [\"watched\"]\nmode = \"audit\"\n")
	me := program(t, t.TempDir()+"/me")
	does(t, me, 0, "o_trunc", v.image(t, "a.img"))
	does(t, me, 0, "o_trunc", v.image(t, "watched"))
	v.run(t, "allow", "--op", "truncate", "--for", "1m", "--reason", "test", v.dir+"/a.img")
	does(t, me, 0, "o_trunc", v.dir+"/a.img")
	v.killWorker(t)
	does(t, me, 0, "unlink", v.dir+"/a.img")
	metrics := v.scrape(t)
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(metrics)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	for _, want := range []string{
		"imgward_takeovers_total{", "imgward_exceptions_active{", `op="unlink"`, `caller="outsider"`, "imgward_decision_duration_seconds_bucket{",
		`imgward_decisions_total{result="refused"`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}

	const rules = "../../dist/prometheus/imgward.rules.yml"
	if out, err := exec.Command("promtool", "check", "rules", rules).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	metrics += v.run(t, "metrics")
	for _, file := range []string{rules, "../../dist/grafana/imgward.json", "../../docs/metrics.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`imgward_[a-z_]+`).FindAllString(string(text), -1) {
			if !strings.Contains(metrics, "\n# TYPE "+strings.TrimSuffix(name, "_bucket")+" ") {
				t.Errorf("%s speaks of %s, which is not there", file, name)
			}
		}
	}
	documented, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`# TYPE (imgward_\w+) `).FindAllStringSubmatch(metrics, -1) {
		if !strings.Contains(string(documented), "`"+m[1]+"`") {
			t.Errorf("docs/metrics.md does not have %s", m[1])
		}
	}
}

// TestAlerts: each alert fires when it should and at no other time, by Prometheus' own test of rules.
func TestAlerts(t *testing.T) {
	out, err := exec.Command("promtool", "test", "rules", "../../dist/prometheus/imgward.rules.test.yml").CombinedOutput()
	if err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// TestDashboardFirstRefusal: what the dashboard says of refusals counts the first one.
func TestDashboardFirstRefusal(t *testing.T) {
	text, err := os.ReadFile("../../dist/grafana/imgward.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	vars := strings.NewReplacer("$instance", ".*", "$view", ".*", "$__rate_interval", "4m")
	var tests strings.Builder
	panels := 0
	for _, p := range dashboard.Panels {
		if !strings.Contains(p.Targets[0].Expr, "imgward_refusals_total") {
			continue
		}
		panels++
		fmt.Fprintf(&tests, "      - {expr: 'round(sum(%s))', eval_time: 62m, exp_samples: [{labels: '{}', value: 1}]}\n", vars.Replace(p.Targets[0].Expr))
	}
	if panels != 2 {
		t.Errorf("%d panels are about refusals, not 2", panels)
	}
	file := filepath.Join(t.TempDir(), "test.yml")
	rules := `evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'imgward_refusals_total{instance="h",view="/v",op="truncate",mode="enforce"}', values: '0x60 1x60'}
      - {series: 'imgward_refusals_total{instance="h",view="/v",op="unlink",mode="enforce"}', values: '0x120'}
    promql_expr_test:
` + tests.String()
	if err := os.WriteFile(file, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s\n%s", err, out, rules)
	}
}

// TestTextfile: imgward metrics knows which views there are, which ought to be, and which have been ended on purpose.
func TestTextfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "imgward.prom")
	stays, ends, taken := newView(t, allAlways), newView(t, allAlways), newView(t, allAlways)
	for _, v := range []*view{stays, ends, taken} {
		v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, v.dir)
	}
	t.Cleanup(func() { stays.run(t, "umount", stays.dir) })
	up := func(v *view) string {
		t.Helper()
		v.run(t, "metrics", "--textfile", file)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`imgward_view_up\{view="` + v.dir + `"\} (\d)`).FindStringSubmatch(string(text))
		if m == nil {
			return "none"
		}
		return m[1]
	}
	is := func(when string, v *view, want string) {
		t.Helper()
		if got := up(v); got != want {
			t.Errorf("%s: imgward_view_up is %s, not %s", when, got, want)
		}
	}
	is("mounted", ends, "1")
	stays.killWorker(t)
	is("after a take-over", stays, "1")
	ends.run(t, "umount", ends.dir)
	is("after imgward umount", ends, "none")
	if out, err := exec.Command("umount", taken.dir).CombinedOutput(); err != nil {
		t.Fatalf("umount: %v %s", err, out)
	}
	until(t, "a view that others unmounted is missed", func() bool { return up(taken) == "0" })
	taken.run(t, "mount", "--log", taken.log, "-o", "policy="+taken.policy, taken.dir)
	is("mounted again", taken, "1")
	if out, err := exec.Command("umount", taken.dir).CombinedOutput(); err != nil {
		t.Fatalf("umount: %v %s", err, out)
	}
	until(t, "a view that others unmounted is missed again", func() bool { return up(taken) == "0" })
	taken.run(t, "umount", taken.dir)
	is("meant after all", taken, "none")
	if s, err := os.Stat(file); err != nil || s.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", s.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Dir(file) + "/.imgward*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

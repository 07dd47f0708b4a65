package policy

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
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

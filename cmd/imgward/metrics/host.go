// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"
)

// What is said of a host as a whole, by `imgward metrics`.
const (
	viewUp    = "imgward_view_up"
	collected = "imgward_collected_time_seconds"
)

var hostHelp = map[string]string{
	viewUp:    "Whether a daemon serves the view (1), or the view ought to be there and is not (0). One that was ended by imgward umount has none.",
	collected: "When imgward metrics was run, in seconds since 1970.",
}

// Host gathers the metrics of all views of a host into one text.
type Host struct{ families map[string]*dto.MetricFamily }

// NewHost begins a text, at a time.
func NewHost(now time.Time) *Host {
	h := &Host{families: map[string]*dto.MetricFamily{}}
	h.gauge(collected, float64(now.UnixNano())/1e9)
	return h
}

// Add adds what a view's daemon says; nil: none does. What every Go program says of itself is left out: node_exporter, who
// will read the text, says that of its own.
func (h *Host) Add(view string, text []byte) error {
	h.gauge(viewUp, flag(text != nil), &dto.LabelPair{Name: proto.String("view"), Value: proto.String(view)})
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("read the metrics of %s: %w", view, err)
	}
	for name, f := range families {
		if known := h.families[name]; known != nil {
			known.Metric = append(known.Metric, f.GetMetric()...)
		} else if strings.HasPrefix(name, "imgward_") {
			h.families[name] = f
		}
	}
	return nil
}

func (h *Host) gauge(name string, value float64, labels ...*dto.LabelPair) {
	f := h.families[name]
	if f == nil {
		f = &dto.MetricFamily{Name: proto.String(name), Help: proto.String(hostHelp[name]), Type: dto.MetricType_GAUGE.Enum()}
		h.families[name] = f
	}
	f.Metric = append(f.Metric, &dto.Metric{Label: labels, Gauge: &dto.Gauge{Value: proto.Float64(value)}})
}

// WriteTo writes the text.
func (h *Host) WriteTo(w io.Writer) (n int64, err error) {
	for _, name := range slices.Sorted(maps.Keys(h.families)) {
		wrote, err := expfmt.MetricFamilyToText(w, h.families[name])
		n += int64(wrote)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

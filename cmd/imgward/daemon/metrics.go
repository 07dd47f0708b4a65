// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/http"
	"strings"

	"imgward/cmd/imgward/metrics"
)

// metrics makes what answers GET /metrics, and serves it on a loopback port as well if that is asked for. A view without
// metrics is better than none, so a failure is only logged.
func (w *worker) metrics() http.Handler {
	h, err := metrics.Handler(&metrics.Source{
		Mountpoint: w.mountpoint, Version: w.flags.Version, View: w.session.FS, Guard: w.guard, PolicyFault: w.policy.Fault,
		Mount: w.mounts,
	})
	if err != nil {
		w.log.Error("there are no metrics", "error", err)
		return nil
	}
	for _, o := range w.flags.Options {
		if address, ok := strings.CutPrefix(o, "metrics="); ok {
			go func() { w.log.Error("the metrics' port has failed", "error", metrics.Serve(address, h)) }()
		}
	}
	return h
}

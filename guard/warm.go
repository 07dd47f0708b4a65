package guard

import (
	"context"
	"time"
)

// rereadEvery is how often the index is refreshed without a question or an event: paths are followed anew, since what
// they lead to may change (a mount, a symbolic link) without a trace in libvirt's directories.
const rereadEvery = 30 * time.Second

// keepWarm keeps the index near the present, so that a question finds little to do. No decision rests on it.
func (g *Guard) keepWarm(ctx context.Context) {
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	for {
		if err := g.domains.locked(ctx, g.domains.resolveAll); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

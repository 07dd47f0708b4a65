package guard

import (
	"context"

	"imgward/guard/procfs"
)

// InUse implements Checker.
func (g *Guard) InUse(ctx context.Context) map[ID][]Use {
	all, err := g.domains.all(ctx)
	if err != nil {
		g.log.Warn("images in use are not complete", "err", err)
		all[ID{}] = unread() // a directory above one of them must not be renamed
	}
	_, _ = g.regime.Load().procs.VMMFiles(ctx, nil, func(o procfs.OpenFile) bool {
		id := fileID(&o)
		if !names(all[id], o.PID) {
			all[id] = append(all[id], g.named(ctx, id, directUse(&o)))
		}
		return true
	})
	return all
}

// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"

	"imgward/guard/procfs"
)

// Known lists the images in use by libvirt's files and the kernel's table of locks, fresh as for Check. It looks at no process
// but the VMMs that these name, and so takes milliseconds.
func (g *Guard) Known(ctx context.Context) map[ID][]Use {
	all, err := g.domains.all(ctx)
	if err != nil {
		g.log.Warn("images in use are not complete", "err", err)
		all[ID{}] = unread() // a directory above one of them must not be renamed
	}
	saved, _ := g.saved.all(ctx)
	for id, uses := range saved {
		all[id] = append(all[id], uses...)
	}
	g.addSnapshots(all)
	g.addLockedDevices(all)
	return all
}

// RunningAmong lists those of some images that running domains use by libvirt's status files, fresh as for Check. It takes as long
// as a decision, however many domains there are. The zero ID is among them where any image may be in use.
func (g *Guard) RunningAmong(ctx context.Context, images map[ID]bool) (map[ID][]Use, error) {
	return g.domains.among(ctx, func(id ID) bool { return images[id] })
}

// InUse implements Checker.
func (g *Guard) InUse(ctx context.Context) map[ID][]Use {
	all := g.Known(ctx)
	_, _ = g.inForce.Load().procs.VMMFiles(ctx, nil, ServesView, func(o procfs.OpenFile) bool {
		id := fileID(&o)
		if !names(all[id], o.PID) && holdsDisk(&o) {
			all[id] = append(all[id], g.named(ctx, id, directUse(&o)))
		}
		return true
	})
	g.addLocked(all)
	for _, uses := range all {
		g.inForce.Load().namePrograms(uses)
	}
	return all
}

// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	"imgward/guard"
	"imgward/guard/lsm"
)

// viewsHere finds the views that are mounted in this mount namespace, for the second layer. A view is asked once for each
// of its workers.
type viewsHere struct {
	known map[string]knownView // by mountpoint
}

type knownView struct {
	lsm.View
	root guard.ID // of the backing tree
}

// viewTimeout is how long the second layer waits for a view to say where its files are.
const viewTimeout = time.Second

// list is called by one goroutine at a time.
func (h *viewsHere) list() (views []lsm.View) {
	places, err := control.Places()
	if err != nil {
		return nil
	}
	known := map[string]knownView{}
	for _, p := range places {
		if p.At == nil {
			continue
		}
		k, ok := h.known[p.At.Mountpoint]
		if !ok || !k.lives() {
			if k, ok = askView(p); !ok {
				continue
			}
		}
		known[k.Mountpoint] = k
		views = append(views, k.View)
	}
	h.known = known
	return views
}

// lives says whether the tree is still at the descriptor of that worker.
func (k knownView) lives() bool {
	var st unix.Stat_t
	return unix.Stat(k.Tree, &st) == nil && guard.StatID(&st) == k.root
}

func askView(p control.Place) (knownView, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), viewTimeout)
	defer cancel()
	v, err := control.Dial(p.Name).View(ctx)
	if err != nil {
		return knownView{}, false
	}
	tree := fmt.Sprintf("/proc/%d/fd/%d", v.PID, v.TreeFD)
	return knownView{lsm.View{Mountpoint: p.At.Mountpoint, Tree: tree}, v.Root}, true
}

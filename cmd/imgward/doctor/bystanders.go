// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"

	"imgward/cmd/imgward/bystander"
)

// bystanders looks for processes that have stood in a view's directory since before the mount, and go beside the view.
func (h *Host) bystanders(ctx context.Context) []Finding {
	var list []Finding
	for _, v := range h.Views {
		if v.Backing != v.Mountpoint {
			continue
		}
		for _, p := range bystander.Of(ctx, v.Root) {
			what := fmt.Sprintf("%s, from before the mount: what it does there bypasses the view", &p)
			if p.Works() {
				list = append(list, problem(what, "in a shell: cd . Restart any other program"))
			} else {
				list = append(list, note(what, "start it again, if it changes images"))
			}
		}
	}
	if len(list) == 0 && len(h.Views) > 0 {
		list = append(list, ok("no process has been in a view's directory since before the mount"))
	}
	return list
}

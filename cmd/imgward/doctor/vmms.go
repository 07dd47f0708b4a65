// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// vmms names the VMMs that no list of a policy has, once each, with the images of all views that they have open.
func (h *Host) vmms(context.Context) []Finding {
	programs, images := map[int]string{}, map[int][]string{}
	for _, v := range h.Views {
		for _, vmm := range v.Unlisted {
			programs[vmm.PID] = vmm.Program
			for _, path := range vmm.Images {
				images[vmm.PID] = append(images[vmm.PID], filepath.Join(v.Mountpoint, path))
			}
		}
	}
	var list []Finding
	for _, pid := range slices.Sorted(maps.Keys(programs)) {
		open := "no image of a view"
		if len(images[pid]) > 0 {
			open = strings.Join(images[pid], ", ")
		}
		list = append(list, note(fmt.Sprintf("%s (pid %d) is a VMM that no list of the policy names; it has %s open", programs[pid], pid, open),
			"what it has open is in use all the same; vmm in the policy names its program, or vmm_cgroup its control group (in a container: this)"))
	}
	if len(list) == 0 && len(h.Views) > 0 {
		list = append(list, ok("the policy's lists name every VMM that runs"))
	}
	return list
}

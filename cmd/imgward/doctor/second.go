// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"imgward/cmd/imgward/control"
	"imgward/guard/claims"
	"imgward/guard/lsm"
)

// Second is the second layer, as its daemon describes it.
type Second struct {
	Layers []control.LayerLine
	Holds  []control.HoldLine
}

// second says what the second layer does here, and for each device in use what protects it.
func (h *Host) second(context.Context) []Finding {
	if h.Second == nil {
		return h.withoutGuard()
	}
	var list []Finding
	active := map[string]bool{}
	for _, l := range h.Second.Layers {
		active[l.Layer] = l.Active
		switch {
		case !l.Active:
			list = append(list, note(fmt.Sprintf("the second layer's %s is off: %s", l.Layer, l.Reason), ""))
		case l.Reason != "":
			list = append(list, note(fmt.Sprintf("the second layer's %s is on, but %s", l.Layer, l.Reason), ""))
		default:
			list = append(list, ok(fmt.Sprintf("the second layer's %s is on", l.Layer)))
		}
	}
	return append(list, h.Second.devices(active[lsm.Name])...)
}

// devices has a finding for each device or file that the layers hold, or have left alone.
func (s *Second) devices(kernel bool) (list []Finding) {
	byID := map[string][]control.HoldLine{}
	var names []string
	for _, hold := range s.Holds {
		name := hold.ID.String()
		if byID[name] == nil {
			names = append(names, name)
		}
		byID[name] = append(byID[name], hold)
	}
	for _, name := range names {
		holds := byID[name]
		path := holds[0].Path
		var by, left []string
		for _, hold := range holds {
			if hold.Left != "" {
				left = append(left, hold.Layer+": "+hold.Left)
				continue
			}
			by = append(by, hold.Layer)
		}
		slices.Sort(by)
		switch {
		case len(by) == 0:
			list = append(list, note(fmt.Sprintf("%s, which a VM uses, is not protected by the second layer: %s", path, strings.Join(left, "; ")), "imgward who "+path))
		case len(left) > 0:
			list = append(list, note(fmt.Sprintf("%s, which a VM uses, is protected by %s alone: %s", path, strings.Join(by, ", "), strings.Join(left, "; ")), "imgward who "+path))
		case !kernel && slices.Contains(by, claims.Name):
			list = append(list, note(path+", which a VM uses, is protected by a claim: mkfs, wipefs, pvcreate and mount are refused, and dd is not", ""))
		default:
			list = append(list, ok(fmt.Sprintf("%s is protected by %s", path, strings.Join(by, ", "))))
		}
	}
	return list
}

// withoutGuard says what there is to protect, and what the kernel could do for it.
func (h *Host) withoutGuard() (list []Finding) {
	var devices []string
	for _, img := range h.Elsewhere {
		if img.Block {
			devices = append(devices, img.Path)
		}
	}
	const start = "systemctl enable --now imgward-guard, or imgward guard"
	switch {
	case lsm.Loaded(lsm.DefaultDir):
		list = append(list, problem("the guard was killed: what it told the kernel is still refused, but nobody adds to it, and devices are not claimed", start))
	case len(devices) > 0:
		list = append(list, problem("block devices that VMs use are not protected, for the guard does not run: "+strings.Join(devices, ", "), start))
	default:
		list = append(list, ok("no VM uses a block device, which the guard would protect; it does not run"))
	}
	if err := lsm.Supported(); err != nil {
		list = append(list, note("the kernel cannot refuse what goes beside a view (dd to a device, a shell from before the mount): "+err.Error(), ""))
	} else {
		list = append(list, ok("the kernel can refuse what goes beside a view: imgward guard has it do so"))
	}
	return list
}

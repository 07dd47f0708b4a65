// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"os"

	"imgward/guard/layers"
)

// Layers lists what is below and above an image and has bytes in common with it: who uses one of them uses the image.
func (g *Guard) Layers(id ID) []layers.Layer { return g.stack().Related(layers.ID(id)) }

func (g *Guard) stack() layers.Stack {
	return layers.Stack{Loops: &g.loops, Lookup: func(path string) (layers.ID, error) {
		id, err := g.lookup(path)
		return layers.ID(id), err
	}}
}

// usesOfLayers is who uses the image by way of these layers.
func (g *Guard) usesOfLayers(ctx context.Context, others []layers.Layer) []Use {
	var uses []Use
	asked := map[layers.ID]bool{{}: true} // the file of a loop device that nothing leads to any more cannot be asked about
	for _, l := range others {
		if asked[l.ID] {
			continue
		}
		asked[l.ID] = true
		open := Descriptor(func() (*os.File, error) { return g.config.Host.Open(l.Path) })
		for _, u := range g.asked(ctx, &Request{Image: ID(l.ID), Open: open}).whoever(byFact()) {
			u.Layer = l.Path
			uses = append(uses, u)
		}
	}
	return uses
}

package imgcopy

import "context"

// adoption is for an image that was made for this copy alone, beside its final name: a clone of a suspended domain's
// disk, or what libvirt's backup job wrote. It needs no more than that name.
var adoption = rung{method: MethodAdopt, unfit: noAdoption, climb: adopt}

func noAdoption(c *copier) string {
	if t, ok := c.dst.(*fresh); ok && t.adopts {
		return ""
	}
	return "the image was not made for this copy"
}

func adopt(_ context.Context, c *copier, _ int64) (int64, string, error) {
	c.moved(Step{Len: c.src.size, Method: MethodAdopt})
	return c.src.size, "", nil
}

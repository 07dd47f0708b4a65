package imgcopy

import (
	"context"
	"errors"
	"fmt"
)

// rung is one way to move an image; each is one file.
type rung struct {
	method Method
	// unfit says why this rung cannot hold, as far as looking tells; "" if it is worth a try.
	unfit func(c *copier) string
	// rehearse tries it on a scratch file for a plan, and says why it does not hold; nil: it always does.
	rehearse func(c *copier, from int64) string
	// climb copies from an offset on, as far as it can. Coming less far than the end is no error: why says what kept
	// it, and the next rung goes on from there.
	climb func(ctx context.Context, c *copier, from int64) (reached int64, why string, err error)
}

// ladder is every way there is, best first. The last one always gets to the end.
func ladder() []rung { return []rung{adoption, cloning, kernelCopying, readingAndWriting} }

// transfer climbs down the ladder until everything after from is copied.
func (c *copier) transfer(ctx context.Context, from int64) error {
	if from == c.src.size {
		return nil
	}
	for _, r := range ladder() {
		if r.method == MethodBuffer && c.opts.Reflink == Always {
			return errors.New("--reflink=always: " + c.why)
		}
		why := r.unfit(c)
		fit := why == ""
		if fit {
			var err error
			if from, why, err = r.climb(ctx, c, from); err != nil || from == c.src.size {
				return outOfSpace(err)
			}
			from = from / chunk * chunk // pieces and leaves begin at whole chunks
		}
		c.passOver(r, why, fit)
	}
	return fmt.Errorf("copied up to byte %d of %d and no further", from, c.src.size)
}

// passOver remembers why there is no reflink, which is what people ask about a slow copy: the reason of the last rung
// that might have held.
func (c *copier) passOver(r rung, why string, tried bool) {
	c.opts.Log.Debug("next rung", "not", r.method, "why", why)
	if tried || r.method == MethodClone {
		c.why = "no reflink: " + why
	}
}

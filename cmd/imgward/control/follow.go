// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
)

// Follow calls each with every event as a line of JSON: the history, then those to come, until the view ends. A stream
// that ends with its worker is taken up with the successor, where it ended. The error of each ends it.
func (c *Client) Follow(ctx context.Context, each func(line []byte) error) error {
	if _, err := c.View(ctx); err != nil {
		return err
	}
	last := uint64(0)
	for ctx.Err() == nil {
		var stop error
		query := url.Values{"follow": {"1"}, "after": {strconv.FormatUint(last, 10)}}
		err := c.Get(ctx, "events", query, func(line []byte) error {
			var e struct{ ID uint64 }
			if stop = json.Unmarshal(line, &e); stop == nil {
				stop = each(line)
			}
			last = e.ID
			return stop
		})
		switch {
		case stop != nil:
			return stop
		case Dead(err):
			return nil // the view has ended
		case err != nil && !Lost(err):
			return err
		}
		pause(ctx)
	}
	return ctx.Err()
}

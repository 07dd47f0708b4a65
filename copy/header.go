// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"bytes"
	"context"
	"fmt"

	"imgward/copy/digest"
	"imgward/copy/move"
)

// rewriteHeader gives the copy the beginning that it is to have (Options.Header), when everything else has been compared with
// the source. A manifest describes the copy, so what was hashed of the source there is hashed anew.
func (c *copier) rewriteHeader(ctx context.Context) error {
	b, err := c.header()
	if err != nil || b == nil {
		return err
	}
	f := c.dst.File()
	if _, err := f.WriteAt(b, 0); err != nil {
		return move.OutOfSpace(err)
	}
	if c.sums == nil {
		return nil
	}
	h, err := fromMedium(f)
	if err != nil {
		return err
	}
	defer h.Close()
	first := move.Span{N: min(digest.Block, c.src.Size)}
	got := digest.New(c.sums.Algorithm(), c.src.Size)
	if err := hash(ctx, h, got, first, c.opts, countedReader(h, &c.prog.Checked)); err != nil {
		return fmt.Errorf("read the copy's header back: %w", err)
	}
	c.sums.Replace(0, got.Blocks()[0])
	back := make([]byte, len(b), len(b)+move.Chunk)
	if _, err := h.ReadAt(back, 0); err != nil {
		return fmt.Errorf("read the copy's header back: %w", err)
	}
	if !bytes.Equal(back, b) {
		return fmt.Errorf("%w: the copy's header is not what was written; do not trust this medium (or this memory)", ErrVerify)
	}
	return nil
}

// header is what the copy begins with; nil: what the source begins with.
func (c *copier) header() ([]byte, error) {
	if c.opts.Header == nil {
		return nil, nil
	}
	b, err := c.opts.Header(c.src.File)
	if err == nil && b != nil {
		c.order.Flush()
		c.order.Add(move.Step{Len: int64(len(b)), Method: move.MethodHeader})
		c.order.Flush()
	}
	return b, err
}

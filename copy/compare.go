// SPDX-License-Identifier: Apache-2.0

package imgcopy

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"imgward/copy/dest"
	"imgward/copy/digest"
	"imgward/copy/manifest"
	"imgward/copy/move"
	"imgward/copy/source"
)

// Difference is a range in which an image is not as it should be: whole blocks of digest.Block, but at the end.
type Difference struct {
	Off int64 `json:"offset"`
	Len int64 `json:"length"`
}

// Check compares the image at path with the manifest at manifestPath. Differences are an error that is ErrVerify. A
// device may be larger than its image was.
func Check(ctx context.Context, path, manifestPath string, o Options) ([]Difference, error) {
	src, err := openImage(ctx, path, &o)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	o.Progress.Data.Store(src.Data())
	m, err := loadManifest(manifestPath, func(size int64) error {
		if src.Size < size || src.Kind == source.Regular && src.Size > size {
			return fmt.Errorf("%w: %s has %d bytes, the manifest's image has %d", ErrVerify, path, src.Size, size)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	have, err := hashImage(ctx, src, m.Algorithm, m.Size, &o)
	if err != nil {
		return nil, Cause(ctx, err)
	}
	return differences(have, m.Blocks, m.Size, path)
}

// Digest is the root of the tree of BLAKE3 hashes (package digest) of the image at path, read from the medium, and its size.
func Digest(ctx context.Context, path string, o Options) (digest.Sum, int64, error) {
	src, err := openImage(ctx, path, &o)
	if err != nil {
		return "", 0, err
	}
	defer src.Close()
	blocks, err := hashImage(ctx, src, digest.BLAKE3, src.Size, &o)
	return digest.Join(digest.BLAKE3, blocks), src.Size, Cause(ctx, err)
}

// IsManifest reports whether the file at path begins as a manifest does.
func IsManifest(path string) bool { return dest.BeginsWith(path, manifest.Magic) }

func loadManifest(path string, sized func(int64) error) (manifest.Manifest, error) {
	f, err := source.OpenFile(path)
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("open the manifest: %w", err)
	}
	defer f.Close()
	m, err := manifest.Parse(f, sized)
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// Compare compares two images, both read at the same time. Of a device and a file, the file's size counts.
func Compare(ctx context.Context, a, b string, o Options) ([]Difference, error) {
	srcA, err := openImage(ctx, a, &o)
	if err != nil {
		return nil, err
	}
	defer srcA.Close()
	srcB, err := openImage(ctx, b, &o)
	if err != nil {
		return nil, err
	}
	defer srcB.Close()
	size, larger := srcA.Size, srcB
	if srcA.Size > srcB.Size {
		size, larger = srcB.Size, srcA
	}
	if larger.Size > size && larger.Kind == source.Regular {
		return nil, fmt.Errorf("%w: %s has %d bytes, %s has %d", ErrVerify, a, srcA.Size, b, srcB.Size)
	}
	o.Progress.Data.Store(srcA.Data() + srcB.Data())
	var sums [2][]digest.Sum
	group, inner := errgroup.WithContext(ctx)
	for i, src := range []*source.Source{srcA, srcB} {
		group.Go(func() (err error) {
			sums[i], err = hashImage(inner, src, digest.XXH3, size, &o)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, Cause(ctx, err)
	}
	return differences(sums[0], sums[1], size, a+" and "+b)
}

// openImage opens an image that can be read twice, and locks it like the source of a copy: while a machine writes to it
// no answer would mean anything.
func openImage(ctx context.Context, path string, o *Options) (*source.Source, error) {
	src, err := source.Open(path)
	if err != nil {
		return nil, err
	}
	if src.Kind == source.Stream {
		src.Close()
		return nil, fmt.Errorf("%s is a pipe; name a file or a block device", path)
	}
	if err := src.Admit(ctx, &o.Options.Options, ""); err != nil {
		src.Close()
		return nil, err
	}
	return src, nil
}

// hashImage reads from the medium: what is in the cache is not what is being asked about.
func hashImage(ctx context.Context, src *source.Source, alg digest.Algorithm, size int64, o *Options) ([]digest.Sum, error) {
	h := move.NewHandle(src.File, unix.O_RDONLY, true)
	defer h.Close()
	h.Medium = true
	t := digest.New(alg, size)
	if err := hash(ctx, h, t, move.Span{Off: 0, N: size}, o, countedReader(h, &o.Progress.Checked)); err != nil {
		return nil, err
	}
	return t.Blocks(), nil
}

func differences(have, want []digest.Sum, size int64, what string) ([]Difference, error) {
	var d []Difference
	for i := range want {
		if have[i] == want[i] {
			continue
		}
		off := int64(i) * digest.Block
		n := min(digest.Block, size-off)
		if last := len(d) - 1; last >= 0 && d[last].Off+d[last].Len == off {
			d[last].Len += n
			continue
		}
		d = append(d, Difference{off, n})
	}
	if len(d) == 0 {
		return nil, nil
	}
	return d, fmt.Errorf("%w: %s: %s", ErrVerify, what, describeDifferences(d))
}

// describeDifferences names the first few.
func describeDifferences(d []Difference) string {
	const few = 4
	var places []string
	var total int64
	for i, r := range d {
		total += r.Len
		if i < few {
			places = append(places, fmt.Sprintf("%s at byte %d", move.Bytes(r.Len), r.Off))
		}
	}
	if len(d) > few {
		places = append(places, fmt.Sprintf("%d more", len(d)-few))
	}
	return fmt.Sprintf("blocks of %s differ: %s", move.Bytes(total), strings.Join(places, ", "))
}

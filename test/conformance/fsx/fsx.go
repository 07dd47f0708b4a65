// SPDX-License-Identifier: Apache-2.0

// Package fsx works a file at random and checks every byte of it, as fsx(8) of the BSDs and xfstests does.
//
// Each operation goes to the file under test, to a twin on a native file system, and to a model in memory. The results
// (count and errno) must be the twin's, and what is read must be the model's. A run is repeated by its seed.
package fsx

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
)

// Config says what a run does.
type Config struct {
	Seed    uint64
	Ops     int
	MaxSize int // bytes; the file never grows beyond it
	// Path is the file under test, Twin the same on a native file system. Neither exists yet.
	Path, Twin string
	// Shift allows operations that move bytes (collapse, insert), which not all file systems have.
	Shift bool
	// Unaligned allows direct reads and writes that a disk refuses (EINVAL), for where the twin's answer counts.
	Unaligned bool
}

// Run does all operations. Its error names the seed, the operation that went wrong, and those before it.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	log.Info("fsx", "seed", cfg.Seed, "ops", cfg.Ops)
	tested, err := openFile(cfg.Path)
	if err != nil {
		return err
	}
	defer tested.close()
	twin, err := openFile(cfg.Twin)
	if err != nil {
		return err
	}
	defer twin.close()
	r := &run{cfg: cfg, tested: tested, twin: twin, random: rand.New(rand.NewPCG(cfg.Seed, 0))}
	for i := range cfg.Ops {
		if err := ctx.Err(); err != nil {
			return err
		}
		op := r.generate()
		r.history = append(r.history, fmt.Sprintf("%d: %s", i, op))
		if err := r.step(op); err != nil {
			return fmt.Errorf("seed %d, operation %d: %w\nthe last ones were:\n%s", cfg.Seed, i, err, r.recent())
		}
	}
	return r.verifyAll()
}

type run struct {
	cfg          Config
	tested, twin *file
	random       *rand.Rand
	model        []byte
	history      []string
}

// step does one operation everywhere and compares.
func (r *run) step(op operation) error {
	got, gotErr := r.tested.apply(op)
	want, wantErr := r.twin.apply(op)
	if gotErr != wantErr {
		return fmt.Errorf("%s: %v, natively %v", op, gotErr, wantErr)
	}
	if gotErr != nil {
		// The native file system refused it as well (an unaligned direct write, say): nothing has changed.
		return r.verifySize()
	}
	r.model = op.applyModel(r.model)
	if op.reads() {
		if err := compare(op.String(), op.offset, got, op.expect(r.model)); err != nil {
			return err
		}
		if err := compare("the twin: "+op.String(), op.offset, want, op.expect(r.model)); err != nil {
			return fmt.Errorf("the test itself is broken: %w", err)
		}
	}
	return r.verifySize()
}

func (r *run) verifySize() error {
	size, err := r.tested.size()
	if err == nil && size != len(r.model) {
		err = fmt.Errorf("the size is %d, want %d", size, len(r.model))
	}
	return err
}

// verifyAll compares the whole file by each way of reading it.
func (r *run) verifyAll() error {
	for _, via := range []way{buffered, direct, mapped} {
		op := operation{kind: read, via: via, length: r.cfg.MaxSize}
		got, err := r.tested.apply(op)
		if err != nil {
			return fmt.Errorf("seed %d: the last read: %w", r.cfg.Seed, err)
		}
		if err := compare(op.String(), 0, got, r.model); err != nil {
			return fmt.Errorf("seed %d, at the end: %w\n%s", r.cfg.Seed, err, r.recent())
		}
	}
	return nil
}

func (r *run) recent() string {
	return strings.Join(r.history[max(0, len(r.history)-30):], "\n")
}

func compare(what string, at int, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	if len(got) != len(want) {
		return fmt.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("%s: the byte at %d is %#x, want %#x", what, at+i, got[i], want[i])
		}
	}
	return nil
}

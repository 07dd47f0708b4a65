// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"imgward/test/conformance/target"
)

// place is one directory to measure: native, or shown by a FUSE file system.
type place struct {
	name  string
	dir   string
	work  string        // all below is ours
	mount *target.Mount // nil: native
}

const native = "native"

// ours tells the places that must do every workload from the peers, which need not.
func (p *place) ours() bool {
	return p.name == native || p.name == target.View.Name || p.name == target.ViewNoPassthrough.Name
}

// omits tells that the place does not do what the workload is about.
func (p *place) omits(w workload) bool {
	return p.mount != nil && p.mount.Peer.Omits[w.asks] != ""
}

// openPlaces prepares the native directory and mounts every peer that can be had. The first place is native.
func openPlaces(ctx context.Context, cfg *config, log *slog.Logger) ([]*place, error) {
	work, err := os.MkdirTemp(cfg.dir, "benchview-")
	if err != nil {
		return nil, err
	}
	tools := filepath.Join(work, "tools")
	backing := filepath.Join(work, native)
	places := []*place{{name: native, dir: backing, work: work}}
	for _, dir := range []string{tools, backing} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return places, err
		}
	}
	for _, peer := range target.Peers() {
		if !slices.Contains(cfg.only, peer.Name) {
			continue
		}
		if err := peer.Build(ctx, tools); err != nil {
			log.Error("NO ROW: this peer cannot be had", "peer", peer.Name, "error", err)
			continue
		}
		p, err := openPlace(peer, work, tools)
		if err != nil {
			return places, err
		}
		places = append(places, p)
	}
	for _, p := range places {
		if err := fillPlace(p, cfg); err != nil {
			return places, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return places, nil
}

func openPlace(peer target.Peer, work, tools string) (*place, error) {
	backing := filepath.Join(work, peer.Name+".backing")
	if err := os.Mkdir(backing, 0o755); err != nil {
		return nil, err
	}
	mount, err := peer.Start(tools, backing, filepath.Join(work, peer.Name))
	if err != nil {
		return nil, err
	}
	return &place{name: peer.Name, dir: mount.Dir, work: work, mount: mount}, nil
}

// fillPlace makes what the workloads read, through the place itself.
func fillPlace(p *place, cfg *config) error {
	if err := writeFile(filepath.Join(p.dir, dataFile), cfg.size); err != nil {
		return err
	}
	many := filepath.Join(p.dir, manyDir)
	if err := os.Mkdir(many, 0o755); err != nil {
		return err
	}
	for i := range cfg.files {
		if err := os.WriteFile(filepath.Join(many, manyName(i)), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// The names below each place.
const (
	dataFile = "data"
	manyDir  = "many"
	crowdDir = "crowd"
)

func manyName(i int) string { return fmt.Sprintf("vm-%05d.img", i) }

// writeFile fills a file with bytes that no disk compresses away, so that no block is a hole.
func writeFile(path string, mib int) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(i*7 + i>>8)
	}
	for range mib {
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return f.Sync()
}

// closePlaces unmounts all and removes what was made.
func closePlaces(places []*place, log *slog.Logger) {
	clean := true
	for _, p := range places {
		if p.mount == nil {
			continue
		}
		if err := p.mount.Close(); err != nil {
			log.Error("left behind", "place", p.name, "error", err)
			clean = false
		}
	}
	// What is still mounted is not ours to delete.
	if len(places) > 0 && clean {
		if err := os.RemoveAll(places[0].work); err != nil {
			log.Error("left behind", "error", err)
		}
	}
}

// forget drops the kernel's unused names and inodes, so that a file system has to look them up again.
func forget() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0o200)
}

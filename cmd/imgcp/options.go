// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/time/rate"

	imgcopy "imgward/copy"
	"imgward/copy/dd"
	"imgward/copy/dest"
	"imgward/copy/domain/libvirtd"
	"imgward/copy/live"
	"imgward/copy/source"
)

// copyFlags are the options of the copy command as they are typed.
type copyFlags struct {
	overwrite, sync, reflink, direct, sparse string
	onError, mapFile, manifest, live, rate   string
	progress                                 string
	requests, jobs                           int
	maxPause                                 time.Duration
	preallocate, preserve, verify, resume    bool
	plan, explain, json, quiet, verbose, yes bool
	alone, chain, flat                       bool
}

// defaultManifest stands for a file with each destination's name, for --manifest without one.
const defaultManifest = "DST.manifest"

func (f *copyFlags) define(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.StringVar(&f.overwrite, "overwrite", "", "overwrite an existing destination that nobody uses; `WAY`: replace (the "+
		"default: the whole copy takes its place at the end), in-place (write into it)")
	flags.Lookup("overwrite").NoOptDefVal = string(dest.Replace)
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask before a block device is overwritten")
	flags.StringVar(&f.live, "live", "", "copy a disk that a running domain writes to; `WAY`: suspend-reflink (the domain "+
		"is suspended for milliseconds), backup (libvirt's backup job), torn (inconsistent!)")
	flags.DurationVar(&f.maxPause, "max-pause", live.DefaultMaxPause, "suspend a domain for at most `TIME` (default 2s)")
	flags.BoolVar(&f.verify, "verify", false, "read the copy back from the medium and compare it with the source")
	flags.StringVar(&f.manifest, "manifest", "", "write BLAKE3 hashes to `FILE` (default DST.manifest), for imgcp verify")
	flags.Lookup("manifest").NoOptDefVal = defaultManifest
	flags.BoolVar(&f.resume, "resume", false, "keep what has been copied if interrupted, and continue from there next time")
	flags.StringVar(&f.onError, "on-error", "stop", "what to do where the source cannot be read; `HOW`: stop (the default), zero (zeroes in "+
		"the copy, and a map), retry (as zero, and try again at the end)")
	flags.StringVar(&f.mapFile, "map", "", "write the map of what could not be read, in ddrescue's format, to `FILE` (default DST.map)")
	flags.BoolVar(&f.chain, "chain", false, "copy the image with its backing chain and data files into one directory, where they "+
		"name each other")
	flags.BoolVar(&f.flat, "flat", false, "make one raw image of a qcow2 image and all that it needs")
	flags.BoolVar(&f.alone, "alone", false, "copy an image without the backing and data files that it needs, and do not warn of it")
	flags.BoolVarP(&f.preserve, "preserve", "p", false, "copy owner, mode, times, extended attributes and ACLs too")
	flags.StringVar(&f.sync, "sync", "full", "`WHEN`: full (the default): the copy is on the medium when imgcp ends; none: it is "+
		"in the page cache")
	flags.StringVar(&f.reflink, "reflink", "auto", "share blocks with the source; `WHEN`: auto (the default), always, never")
	flags.Lookup("reflink").NoOptDefVal = string(imgcopy.Always) // as with cp
	flags.StringVar(&f.direct, "direct", "auto", "write past the page cache; `WHEN`: auto (the default: with --sync=full), always, never")
	flags.StringVar(&f.sparse, "sparse", "auto", "`WHEN`: auto or always (the default): zeroes become holes; never: they are written")
	flags.BoolVar(&f.preallocate, "preallocate", false, "reserve every block of the copy first, holes too")
	flags.IntVar(&f.requests, "requests", imgcopy.Defaults().Requests, fmt.Sprintf("keep `N` reads and writes of 1 MiB in flight "+
		"(default %d)", imgcopy.Defaults().Requests))
	f.defineRate(flags)
	flags.IntVarP(&f.jobs, "jobs", "j", 1, "copy `N` images at once (default 1)")
	flags.BoolVar(&f.plan, "plan", false, "print what would be done to which part of the image, and do nothing")
	flags.BoolVar(&f.explain, "explain", false, "print what is done to which part of the image, and why no faster way works")
	flags.BoolVar(&f.json, "json", false, "print events as JSON lines")
	flags.StringVar(&f.progress, "progress", "auto", "`WHEN`: auto (the default: a bar on a terminal, a line every ten seconds "+
		"elsewhere), always, never")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print warnings and errors only")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print more")
}

// defineRate is for imgcp dd, too.
func (f *copyFlags) defineRate(flags *pflag.FlagSet) {
	flags.StringVar(&f.rate, "rate-limit", "", "read at most `BYTES` per second; suffixes K, M, G")
}

// options turns flags into the engine's options, the same for every image.
func (f *copyFlags) options(w *world) (imgcopy.Options, error) {
	o := copyDefaults(w)
	o.Overwrite, o.OnError = dest.Overwrite(f.overwrite), imgcopy.OnError(f.onError)
	o.Reflink, o.Direct = imgcopy.When(f.reflink), imgcopy.When(f.direct)
	o.Sync, o.KeepZeroes = f.sync == "full", f.sparse == "never"
	o.Preallocate, o.Preserve, o.Verify, o.Resume = f.preallocate, f.preserve, f.verify, f.resume
	o.Alone, o.Flat = f.alone || f.flat, f.flat
	o.Requests = f.requests
	if err := f.check(); err != nil {
		return o, err
	}
	var err error
	if o.Limit, err = f.limit(); err != nil {
		return o, err
	}
	o.Live, err = f.liveWay(w)
	return o, err
}

// copyDefaults is a copy with this host's evidence, locks and state.
func copyDefaults(w *world) imgcopy.Options {
	o := imgcopy.Defaults()
	o.StateDir, o.Users, o.Locks, o.Log = stateDir(), w.users, imageLocks{}, w.log
	return o
}

// parseRate reads an option that is a number of bytes per second; 0 where it was not given.
func parseRate(option, value string) (int64, error) {
	if value == "" {
		return 0, nil
	}
	n, err := dd.ParseSize(value)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("--%s=%s: a number of bytes per second, as in 100M", option, value)
	}
	return n, nil
}

// limit is --rate-limit; nil: none.
func (f *copyFlags) limit() (*rate.Limiter, error) {
	n, err := parseRate("rate-limit", f.rate)
	if err != nil || n == 0 {
		return nil, err
	}
	const burst = 1 << 20 // at least one request
	return rate.NewLimiter(rate.Limit(n), burst), nil
}

// check refuses values that are not in the help.
func (f *copyFlags) check() error {
	for name, value := range map[string]string{
		"overwrite": f.overwrite, "on-error": f.onError, "sync": f.sync, "reflink": f.reflink, "direct": f.direct,
		"sparse": f.sparse, "progress": f.progress, "live": f.live,
	} {
		if value != "" && !slices.Contains(flagValues[name], value) {
			return fmt.Errorf("--%s=%s: one of %s", name, value, strings.Join(flagValues[name], ", "))
		}
	}
	switch {
	case f.chain && f.alone:
		return errors.New("--chain copies all that an image needs, --alone nothing of it: choose one")
	case f.flat && (f.chain || f.alone):
		return errors.New("--flat makes one image of all that an image needs: choose it, --chain or --alone")
	case f.chain && f.live == "backup":
		return errors.New("--chain: --live=backup copies the disk as one image without a chain; leave out --chain, or use --live=suspend-reflink")
	case f.requests < 1 || f.requests > 64:
		return errors.New("--requests: a number from 1 to 64")
	case f.maxPause <= 0:
		return errors.New("--max-pause: a time of more than 0, as in 500ms or 3s")
	case f.jobs < 1:
		return errors.New("--jobs: a number of at least 1")
	}
	return nil
}

// liveWay is how a disk in use becomes consistent.
func (f *copyFlags) liveWay(w *world) (source.Live, error) {
	switch f.live {
	case "":
		return nil, nil
	case "torn":
		return live.Torn{Log: w.log}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find imgcp itself, for the helper process: %w", err)
	}
	helper, conn := []string{self, guardianName}, libvirtd.New("")
	switch f.live {
	case "suspend-reflink":
		return live.Suspend{Libvirt: conn, Helper: helper, Log: w.log, MaxPause: f.maxPause}, nil
	case "backup":
		return live.Backup{Libvirt: conn, Helper: helper, Log: w.log}, nil
	}
	return nil, fmt.Errorf("--live=%s: suspend-reflink, backup or torn", f.live)
}

// stateDir keeps what resuming copies to block devices takes: /var/lib for root, the user's own state otherwise.
func stateDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/imgcp"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "imgcp")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local/state/imgcp")
}

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/time/rate"

	imgcopy "imgward/copy"
	"imgward/copy/dd"
	"imgward/copy/live"
)

// copyFlags are the options of the copy command as they are typed.
type copyFlags struct {
	overwrite, sync, reflink, direct, sparse string
	onError, mapFile, manifest, live, rate   string
	progress                                 string
	requests, jobs                           int
	preallocate, preserve, verify, resume    bool
	plan, explain, json, quiet, verbose, yes bool
}

// beside stands for a file beside each destination, for options whose file need not be named.
const beside = "DST.manifest"

func (f *copyFlags) define(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.StringVar(&f.overwrite, "overwrite", "", "overwrite an existing destination that nobody uses; `WAY`: replace (the "+
		"default: the whole copy takes its place at the end), in-place (write into it)")
	flags.Lookup("overwrite").NoOptDefVal = string(imgcopy.Replace)
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask before a block device is overwritten")
	flags.StringVar(&f.live, "live", "", "copy a disk that a running domain writes to; `WAY`: suspend-reflink (the domain "+
		"stands still for milliseconds), backup (libvirt's backup job), torn (inconsistent!)")
	flags.BoolVar(&f.verify, "verify", false, "read the copy back from the medium and compare it with the source")
	flags.StringVar(&f.manifest, "manifest", "", "write BLAKE3 hashes to `FILE` (default DST.manifest), for imgcp verify")
	flags.Lookup("manifest").NoOptDefVal = beside
	flags.BoolVar(&f.resume, "resume", false, "leave something to go on with if interrupted, and go on with it")
	flags.StringVar(&f.onError, "on-error", "stop", "where the source cannot be read; `HOW`: stop (the default), zero (zeroes in "+
		"the copy, and a map), retry (as zero, and try again at the end)")
	flags.StringVar(&f.mapFile, "map", "", "write the map of what could not be read, in ddrescue's format, to `FILE` (default DST.map)")
	flags.BoolVarP(&f.preserve, "preserve", "p", false, "copy owner, mode, times, extended attributes and ACLs too")
	flags.StringVar(&f.sync, "sync", "full", "`WHEN`: full (the default): the copy is on the medium when imgcp ends; none: it is "+
		"in the page cache")
	flags.StringVar(&f.reflink, "reflink", "auto", "share blocks with the source; `WHEN`: auto (the default), always, never")
	flags.StringVar(&f.direct, "direct", "auto", "write past the page cache; `WHEN`: auto (the default: with --sync=full), always, never")
	flags.StringVar(&f.sparse, "sparse", "auto", "`WHEN`: auto (the default): zeroes become holes; never: they are written")
	flags.BoolVar(&f.preallocate, "preallocate", false, "reserve every block of the copy first, holes too")
	flags.IntVar(&f.requests, "requests", imgcopy.Defaults().Requests, fmt.Sprintf("keep `N` reads and writes of 1 MiB in flight "+
		"(default %d)", imgcopy.Defaults().Requests))
	flags.StringVar(&f.rate, "rate-limit", "", "read at most `BYTES` per second; suffixes K, M, G")
	flags.IntVarP(&f.jobs, "jobs", "j", 1, "copy `N` images at once (default 1)")
	flags.BoolVar(&f.plan, "plan", false, "print what would be done to which part of the image, and do nothing")
	flags.BoolVar(&f.explain, "explain", false, "print what is done to which part of the image, and why not faster")
	flags.BoolVar(&f.json, "json", false, "print events as JSON lines")
	flags.StringVar(&f.progress, "progress", "auto", "`WHEN`: auto (the default: a bar on a terminal, a line every ten seconds "+
		"elsewhere), always, never")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print warnings and errors only")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print more")
}

// options turns flags into the engine's options, the same for every image.
func (f *copyFlags) options(w *world) (imgcopy.Options, error) {
	o := imgcopy.Defaults()
	o.Overwrite, o.OnError = imgcopy.Overwrite(f.overwrite), imgcopy.OnError(f.onError)
	o.Reflink, o.Direct = imgcopy.When(f.reflink), imgcopy.When(f.direct)
	o.Sync, o.KeepZeroes = f.sync == "full", f.sparse == "never"
	o.Preallocate, o.Preserve, o.Verify, o.Resume = f.preallocate, f.preserve, f.verify, f.resume
	o.Requests, o.StateDir = f.requests, stateDir()
	o.Users, o.Locks, o.Log = w.users, imageLocks{}, w.log
	if err := f.check(); err != nil {
		return o, err
	}
	if f.rate != "" {
		n, err := dd.ParseSize(f.rate)
		if err != nil || n < 1 {
			return o, fmt.Errorf("--rate-limit=%s: a number of bytes per second, as in 100M", f.rate)
		}
		const burst = 1 << 20 // at least one request
		o.Limit = rate.NewLimiter(rate.Limit(n), burst)
	}
	var err error
	o.Live, err = f.liveWay(w)
	return o, err
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
	case f.requests < 1 || f.requests > 64:
		return errors.New("--requests: 1 to 64")
	case f.jobs < 1:
		return errors.New("--jobs: at least 1")
	}
	return nil
}

// liveWay is how a disk in use becomes consistent.
func (f *copyFlags) liveWay(w *world) (imgcopy.Live, error) {
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
	helper := []string{self, guardianName}
	switch f.live {
	case "suspend-reflink":
		return live.Suspend{Helper: helper, Log: w.log}, nil
	case "backup":
		return live.Backup{Helper: helper, Log: w.log}, nil
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

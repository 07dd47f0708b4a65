// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"imgward/copy/dest"
	"imgward/copy/move"
)

const copyHelp = `Copy disk images block for block, between files, block devices and pipes (-).

The copy gets its name when it is whole and on the medium. An existing
destination is refused; --overwrite allows it for one that nobody uses.
A disk that a running domain writes to is refused as a source, unless --live
says how its copy becomes consistent. Holes stay holes, zeroes become holes,
and file systems with reflinks share the blocks.

A source named like a subcommand is written ./dd or ./verify.
`

const copyExamples = `  imgcp vm1.img /backup/vm1.img               copy one image
  imgcp --verify vm1.img vm2.img /mnt/nas/    read the copies back and compare
  imgcp --overwrite vm1.img /dev/vg0/vm1      image to logical volume
  imgcp --live=suspend-reflink vm1.img b.img  a running domain's disk
  imgcp --chain vm1.qcow2 /backup/vm1/        an overlay and all that it needs
  imgcp --resume big.img /mnt/nas/big.img     continue after an interruption
  imgcp --plan vm1.img /backup/vm1.img        see what would be done
  imgcp dd if=/dev/zero of=new.img bs=1G count=10`

func newCopyCommand() *cobra.Command {
	var f copyFlags
	c := &cobra.Command{
		Use:     "imgcp [OPTIONS] SRC… DST",
		Short:   "Copy disk images block for block",
		Long:    copyHelp,
		Example: copyExamples,
		Version: version,
		Args:    cobra.ArbitraryArgs,

		ValidArgsFunction: completeImage,
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.define(c.Flags())
	return c
}

func (f *copyFlags) run(cmd *cobra.Command, args []string) error {
	w, err := newWorld(f.logLevel())
	if err != nil {
		return err
	}
	defer w.close()
	o, err := f.options(w)
	if err != nil {
		return usageError{err}
	}
	jobs, err := f.pair(args)
	if err != nil {
		return usageError{err}
	}
	if f.chain {
		all, release, err := chainJobs(cmd.Context(), jobs, &o)
		if err != nil {
			return err
		}
		defer release()
		jobs = all
	}
	if err := f.sidecars(jobs); err != nil {
		return usageError{err}
	}
	if spots := blindSpots(); len(spots) > 0 && (f.explain || f.plan || f.verbose) {
		w.log.Info("not all evidence of use can be looked at", "hidden", strings.Join(spots, ", "))
	}
	if f.plan {
		return f.printPlans(cmd, jobs, o)
	}
	return f.copyAll(cmd.Context(), jobs, o)
}

// job is one image to copy.
type job struct {
	from, to            string
	manifest, rescueMap string
	chain               *member       // nil without --chain
	ended               chan struct{} // closed when it is
	failed              bool          // known then
	prog                move.Progress
}

func newJob(from, to string) *job { return &job{from: from, to: to, ended: make(chan struct{})} }

// pair works out which source goes where.
func (f *copyFlags) pair(args []string) ([]*job, error) {
	if len(args) < 2 {
		return nil, errors.New("a source and a destination are needed; see imgcp --help")
	}
	for _, name := range args {
		if name == "" {
			return nil, errors.New("a name is empty; is a variable of a script not set?")
		}
		if hint := elsewhere(name); hint != "" {
			return nil, fmt.Errorf("%s: %s", name, hint)
		}
	}
	sources, dst := args[:len(args)-1], args[len(args)-1]
	st, err := os.Stat(dst)
	intoDir := err == nil && st.IsDir()
	if len(sources) > 1 && !intoDir {
		return nil, fmt.Errorf("%s is not a directory; %d images need one as their destination", dst, len(sources))
	}
	if !intoDir && strings.HasSuffix(dst, "/") {
		return nil, fmt.Errorf("there is no directory %s", dst)
	}
	var jobs []*job
	from := make(map[string]string) // by destination
	for _, src := range sources {
		j := newJob(src, dst)
		if intoDir {
			if src == "-" {
				return nil, errors.New("standard input has no name; name the file in the directory")
			}
			j.to = filepath.Join(dst, filepath.Base(src))
		}
		if other, taken := from[j.to]; taken {
			return nil, fmt.Errorf("%s and %s would both become %s", other, src, j.to)
		}
		from[j.to] = src
		jobs = append(jobs, j)
	}
	return jobs, nil
}

// sidecars names the files that are written with each copy.
func (f *copyFlags) sidecars(jobs []*job) error {
	if len(jobs) > 1 && (f.manifest != "" && f.manifest != defaultManifest || f.mapFile != "") {
		return errors.New("--manifest=FILE and --map=FILE are for one image; for several, leave FILE out")
	}
	for _, j := range jobs {
		plain := j.to != "-" && !dest.InDev(j.to)
		switch {
		case f.manifest == defaultManifest && !plain:
			return fmt.Errorf("--manifest: name the file, %s has no directory to put it in", j.to)
		case f.manifest == defaultManifest:
			j.manifest = j.to + ".manifest"
		default:
			j.manifest = f.manifest
		}
		switch {
		case f.mapFile == "" && f.onError != "stop" && !plain && j.to != "-":
			return fmt.Errorf("--on-error=%s: name the map's file with --map, %s has no directory to put it in", f.onError, j.to)
		case f.mapFile == "":
			j.rescueMap = j.to + ".map"
		default:
			j.rescueMap = f.mapFile
		}
	}
	return nil
}

// elsewhere is the way to an image that is on no file system of this host; "" for a plain name.
func elsewhere(name string) string {
	scheme, _, isURL := strings.Cut(name, "://")
	host, path, remote := strings.Cut(name, ":")
	if _, err := os.Lstat(name); err == nil || !isURL && (!remote || strings.Contains(host, "/")) {
		return ""
	}
	const pipe = "imgcp copies files, block devices and pipes. From another host: ssh HOST imgcp IMAGE - | imgcp - COPY; to it: " +
		"imgcp IMAGE - | ssh HOST imgcp - COPY"
	switch {
	case scheme == "file":
		return "write the name without file://"
	case isURL && scheme != "ssh" && scheme != "sftp" && scheme != "scp":
		return "imgcp copies files, block devices and pipes; qemu-img convert and nbdcopy read and write " + scheme + "://"
	case isURL:
		return pipe
	case len(host) > 0 && path != "":
		return pipe + ". A file of that name here: ./" + name
	}
	return ""
}

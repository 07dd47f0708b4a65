package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	imgcopy "imgward/copy"
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
  imgcp --resume big.img /mnt/nas/big.img     go on after an interruption
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
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
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
	prog                imgcopy.Progress
}

// pair works out which source goes where.
func (f *copyFlags) pair(args []string) ([]*job, error) {
	if len(args) < 2 {
		return nil, errors.New("a source and a destination are needed; see imgcp --help")
	}
	sources, dst := args[:len(args)-1], args[len(args)-1]
	st, err := os.Stat(dst)
	intoDir := err == nil && st.IsDir()
	if len(sources) > 1 && !intoDir {
		return nil, fmt.Errorf("%s is not a directory, and %d images do not fit into one", dst, len(sources))
	}
	if !intoDir && strings.HasSuffix(dst, "/") {
		return nil, fmt.Errorf("there is no directory %s", dst)
	}
	var jobs []*job
	from := make(map[string]string) // by destination
	for _, src := range sources {
		j := &job{from: src, to: dst}
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
	return jobs, f.besides(jobs)
}

// besides names the files that lie beside each copy.
func (f *copyFlags) besides(jobs []*job) error {
	if len(jobs) > 1 && (f.manifest != "" && f.manifest != beside || f.mapFile != "") {
		return errors.New("--manifest=FILE and --map=FILE are for one image; for several, leave FILE out")
	}
	for _, j := range jobs {
		plain := j.to != "-" && !strings.HasPrefix(j.to, "/dev/")
		switch {
		case f.manifest == beside && !plain:
			return fmt.Errorf("--manifest: name the file, there is nothing beside %s", j.to)
		case f.manifest == beside:
			j.manifest = j.to + ".manifest"
		default:
			j.manifest = f.manifest
		}
		switch {
		case f.mapFile == "" && f.onError != "stop" && !plain:
			return fmt.Errorf("--on-error=%s: name the map's file with --map, there is nothing beside %s", f.onError, j.to)
		case f.mapFile == "":
			j.rescueMap = j.to + ".map"
		default:
			j.rescueMap = f.mapFile
		}
	}
	return nil
}

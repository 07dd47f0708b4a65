package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	imgcopy "imgward/copy"
)

const copyHelp = `Copy disk images block for block, between files, block devices and pipes (-).

The copy gets its name when it is whole and on the medium. An existing
destination is refused; --overwrite allows it for one that nobody uses.
Holes stay holes, zeroes become holes, and file systems with reflinks share
the blocks.
`

const copyExamples = `  imgcp vm1.img /backup/vm1.img               copy one image
  imgcp --verify vm1.img /mnt/nas/            read it back and compare
  imgcp --overwrite vm1.img /dev/vg0/vm1      image to logical volume
  imgcp --live=suspend-reflink vm1.img b.img  a running domain's disk
  imgcp --resume big.img /mnt/nas/big.img     go on after an interruption
  imgcp dd if=/dev/zero of=new.img bs=1G count=10`

// copyFlags are the options of the copy command as they are typed.
type copyFlags struct {
	overwrite string
	sync      string
	reflink   string
	requests  int
}

func newCopyCommand() *cobra.Command {
	var f copyFlags
	c := &cobra.Command{
		Use:     "imgcp [OPTIONS] SRC… DST",
		Short:   "Copy disk images block for block",
		Long:    copyHelp + exitHelp,
		Example: copyExamples,
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := c.Flags()
	flags.StringVar(&f.overwrite, "overwrite", "", "overwrite an existing destination that nobody uses: `replace` (at the end, at once) or in-place")
	flags.Lookup("overwrite").NoOptDefVal = string(imgcopy.Replace)
	flags.StringVar(&f.sync, "sync", "full", "`full`: the copy is on the medium when imgcp ends; none: in the page cache")
	flags.StringVar(&f.reflink, "reflink", "auto", "share blocks where the file system can: `auto`, always or never")
	flags.IntVar(&f.requests, "requests", 8, "reads and writes in flight, of 1 MiB each")
	return c
}

func (f *copyFlags) options() (o imgcopy.Options, err error) {
	o = imgcopy.Defaults()
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	switch o.Overwrite = imgcopy.Overwrite(f.overwrite); o.Overwrite {
	case imgcopy.Refuse, imgcopy.Replace, imgcopy.InPlace:
	default:
		return o, fmt.Errorf("--overwrite=%s: replace or in-place", f.overwrite)
	}
	switch f.sync {
	case "full", "none":
		o.Sync = f.sync == "full"
	default:
		return o, fmt.Errorf("--sync=%s: full or none", f.sync)
	}
	o.Requests = f.requests
	o.Locks = imageLocks{}
	if o.Users, err = newUsers(o.Log); err != nil {
		return o, err
	}
	o.Reflink = imgcopy.When(f.reflink)
	return o, nil
}

func (f *copyFlags) run(cmd *cobra.Command, args []string) error {
	o, err := f.options()
	if err != nil {
		return usageError{err}
	}
	if len(args) < 2 {
		return usageError{errors.New("a source and a destination are needed; see imgcp --help")}
	}
	dst := args[len(args)-1]
	for _, src := range args[:len(args)-1] {
		to := dst
		if st, err := os.Stat(dst); err == nil && st.IsDir() {
			to = filepath.Join(dst, filepath.Base(src))
		}
		if _, err := imgcopy.Copy(cmd.Context(), src, to, o); err != nil {
			return err
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
	"imgward/copy/domain/restore"
	"imgward/copy/move"
	"imgward/guard"
)

const restoreHelp = `Bring back a domain that imgcp domain copied: its images go where they were (or
where --map says), its definition, snapshots and checkpoints to libvirt, NVRAM
and TPM state where libvirt looks for them.

Nothing is overwritten, and nothing is started but by --start. What would lead
out of the copy, to the original images above all, is refused before anything is
written, and so is what this host lacks. What an interrupted run has placed is
kept by the next.
`

const restoreExamples = `  imgcp restore /evacuation/vm1
  imgcp restore --print /evacuation/vm1          the XML as it would be defined
  imgcp restore --map /srv/old=/srv/new --map network:lan=default /evac/vm1
  imgcp restore --as vm2 --map /srv/vm1=/srv/vm2 /evacuation/vm1`

// restoreFlags are the options of imgcp restore.
type restoreFlags struct {
	copyFlags
	as, connect             string
	maps, without           []string
	define, print, planOnly bool
	start                   bool
}

func newRestoreCommand() *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use:     "restore [OPTIONS] DEST/NAME",
		Short:   "Bring back a domain that imgcp domain copied",
		Long:    restoreHelp,
		Example: restoreExamples,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("the directory of one copy is needed; see imgcp restore --help")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), cmd.OutOrStdout(), args[0]) },
	}
	flags := c.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.as, "as", "", "give the domain another `NAME`, another UUID and other MAC addresses (default: all as they were)")
	flags.StringArrayVar(&f.maps, "map", nil, "put `OLD=NEW`: what was in directory OLD into NEW, or network:OLD=NEW, bridge:OLD=NEW, "+
		"machine:OLD=NEW, of a network disk rbd:POOL/IMAGE=FILE; may be given more than once")
	flags.StringArrayVar(&f.without, "without", nil, "leave out a disk (`NAME`: its target, as vdb), snapshots or checkpoints; may be given more than once")
	flags.BoolVar(&f.define, "define", false, "put the files in place and define the domain (the default)")
	flags.BoolVar(&f.start, "start", false, "start the domain when all is there; one that was saved goes on where it was")
	flags.BoolVar(&f.print, "print", false, "print the XML that would be defined, and do nothing")
	flags.BoolVar(&f.planOnly, "plan", false, "print which file would go where, and do nothing")
	flags.BoolVar(&f.verify, "verify", false, "read each file back from the medium and compare it with the copy")
	f.defineRate(flags)
	flags.StringVar(&f.connect, "connect", "", "libvirt's `URI` (default: LIBVIRT_DEFAULT_URI, or qemu:///system); the files go to this host")
	flags.BoolVar(&f.json, "json", false, "print events as JSON lines")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print warnings and errors only")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print more")
	return c
}

func (f *restoreFlags) run(ctx context.Context, out io.Writer, dir string) error {
	if (f.define || f.start) && (f.print || f.planOnly) {
		return usageError{errors.New("--define and --start do what --print and --plan only show: choose one")}
	}
	w, err := newWorld(f.logLevel())
	if err != nil {
		return err
	}
	defer w.close()
	o := restore.Options{As: f.as, Start: f.start, Without: f.without, Copy: copyDefaults(w), Log: w.log, File: f.file}
	o.Copy.Verify = f.verify
	if o.Copy.Limit, err = f.limit(); err != nil {
		return usageError{err}
	}
	if o.Maps, err = parseMaps(f.maps); err != nil {
		return err
	}
	conn := libvirtd.New(f.connect)
	defer conn.Close()
	o.Conn = conn
	p, err := restore.New(ctx, dir, o)
	if below, _ := archive.List(dir); errors.Is(err, archive.ErrNone) && len(below) > 0 {
		err = fmt.Errorf("%w, but below it: name one of them, as %s", err, below[0])
	}
	if err != nil {
		return err
	}
	defer p.Close()
	for _, note := range p.Notes {
		w.log.Warn(note)
	}
	switch {
	case f.print:
		fmt.Fprintln(out, p.XML)
		return nil
	case f.planOnly:
		f.show(out, p)
		return nil
	}
	said := len(p.Notes)
	err = p.Run(ctx)
	for _, note := range p.Notes[said:] {
		w.log.Warn(note)
	}
	if err != nil {
		return err
	}
	f.restored(p)
	return nil
}

func parseMaps(maps []string) (all []restore.Map, err error) {
	for _, s := range maps {
		m, err := restore.ParseMap(s)
		if err != nil {
			return nil, usageError{err}
		}
		all = append(all, m)
	}
	return all, nil
}

// restoreEvent is what --json prints.
type restoreEvent struct {
	Type   string        `json:"type"` // "file", "restored", "restore-plan"
	Domain string        `json:"domain,omitempty"`
	UUID   string        `json:"uuid,omitempty"`
	File   *archive.File `json:"file,omitempty"`
	To     string        `json:"to,omitempty"`
	Done   bool          `json:"done,omitempty"`
	Plan   *restore.Plan `json:"plan,omitempty"`
	Notes  []string      `json:"notes,omitempty"`
}

// file reports one file.
func (f *restoreFlags) file(file archive.File, to string, done bool) {
	switch {
	case f.json:
		_ = json.NewEncoder(os.Stdout).Encode(restoreEvent{Type: "file", File: &file, To: to, Done: done})
	case !f.quiet && !done:
		fmt.Fprintf(os.Stderr, "imgcp: %s → %s, %s\n", printable(file.Path), printable(to), move.Bytes(file.Size))
	}
}

func (f *restoreFlags) show(out io.Writer, p *restore.Plan) {
	if f.json {
		_ = json.NewEncoder(out).Encode(restoreEvent{Type: "restore-plan", Domain: p.Domain, UUID: p.UUID, Plan: p})
		return
	}
	for _, file := range p.Files {
		there := ""
		if file.There {
			there = "  (there already)"
		}
		fmt.Fprintf(out, "%s → %s  %s%s\n", printable(file.File.Path), printable(file.To), move.Bytes(file.File.Size), there)
	}
	fmt.Fprintf(out, "domain %s (%s), %s, %s\n", printable(p.Domain), p.UUID, move.Count(len(p.Snapshots), "snapshot"), move.Count(len(p.Checkpoints), "checkpoint"))
}

// restored tells whoever listens: what was done is done, heard or not.
func (f *restoreFlags) restored(p *restore.Plan) {
	switch {
	case f.json:
		_ = json.NewEncoder(os.Stdout).Encode(restoreEvent{Type: "restored", Domain: p.Domain, UUID: p.UUID, Notes: p.Notes})
	case f.start && !f.quiet:
		fmt.Printf("domain %s runs\n", printable(p.Domain))
	case !f.quiet:
		fmt.Printf("domain %s is defined, and was not started: virsh start %s\n", printable(p.Domain), guard.ShellWord(p.Domain))
	}
}

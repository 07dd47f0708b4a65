// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgward/copy/domain"
	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
	"imgward/copy/domain/restore"
)

const domainHelp = `Copy whole domains, running or shut off, to DEST/NAME: their XML, disks with
backing chains, CDs, NVRAM, TPM state, saved state, snapshots, checkpoints.

NAME is a domain, or a pattern as in the shell (quote it). A running domain goes
on: its writes go to overlays while the images below are copied, and are merged
back. Nothing is lost if imgcp is killed: a helper process, the next run, or
--repair brings the domain back to its own images.
`

const domainExamples = `  imgcp domain vm1 /evacuation                 one domain
  imgcp domain --all --jobs=4 --verify /evac   all of them, four at once
  imgcp domain --all --exclude 'test*' /evac
  imgcp domain --all --resume /evac            go on after an interruption
  imgcp domain --live=mirror --shutdown vm1 /evac   with the last write
  imgcp domain --plan --all /evac              what would be copied, what not
  imgcp domain --repair vm1                    undo what an interrupted run left`

// liveWays are how a running domain is copied.
var liveWays = []string{string(archive.Freeze), string(archive.Backup), string(archive.Mirror)}

// orders are what domains may be copied by.
var orders = []string{"name", "size", "given"}

// domainFlags are the options of imgcp domain.
type domainFlags struct {
	copyFlags
	all, running, inactive, repair, secrets, plan, shutdown, flat bool
	exclude                                                       []string
	byDisk, live, scratch, connect, order, between, startOn       string
	throttle                                                      string
	pause                                                         bool
	maps                                                          []string
}

func newDomainCommand() *cobra.Command {
	var f domainFlags
	c := &cobra.Command{
		Use:     "domain [OPTIONS] NAME… DEST",
		Short:   "Copy whole domains, running or shut off",
		Long:    domainHelp,
		Example: domainExamples,
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), cmd.OutOrStdout(), args) },
	}
	flags := c.Flags()
	flags.SortFlags = false
	flags.BoolVar(&f.all, "all", false, "all domains")
	flags.BoolVar(&f.running, "running", false, "of these, those that run")
	flags.BoolVar(&f.inactive, "inactive", false, "of these, those that are shut off")
	flags.StringArrayVar(&f.exclude, "exclude", nil, "leave out domains whose name matches `PATTERN`; may be given more than once")
	flags.StringVar(&f.byDisk, "by-disk", "", "the domains that use the image or block device `PATH`, or one that shares its inode")
	flags.StringVar(&f.live, "live", string(archive.Freeze), "how a running domain is copied; `WAY`: freeze (the default: overlays take "+
		"its writes; keeps backing chains), backup (libvirt's pull backup; each disk becomes one raw image), mirror (QEMU repeats each write until the domain ends: the copy has the last one)")
	flags.BoolVar(&f.shutdown, "shutdown", false, "with --live=mirror: ask the guest to shut down when the mirrors are complete (default: wait until somebody does)")
	flags.StringVar(&f.startOn, "start-on", "", "with --shutdown: restore each copy, when it is compared, to the libvirt at `URI`, and start it there; the files go where --map says")
	flags.StringArrayVar(&f.maps, "map", nil, "with --start-on: as for imgcp restore, `OLD=NEW`; may be given more than once")
	flags.BoolVar(&f.flat, "flat", false, "make one raw image of each qcow2 disk, without its backing chain (--live=backup always does)")
	flags.StringVar(&f.scratch, "scratch", "", "make overlays, or the backup's scratch files, in `DIR` (default: beside the images; /var/lib/libvirt/qemu)")
	flags.BoolVar(&f.secrets, "secrets", false, "save passwords that the XML has, too")
	flags.BoolVar(&f.resume, "resume", false, "go on with copies that are there; what is whole and unchanged is not copied again")
	flags.BoolVar(&f.verify, "verify", false, "read each copy back from the medium and compare it with the source")
	flags.IntVar(&f.jobs, "jobs", 1, "copy `N` domains at once")
	flags.StringVar(&f.order, "order", "name", "begin with; `WAY`: name, size (the smallest first), given (as NAME… names them)")
	flags.StringVar(&f.between, "between", "", "begin copies only between these `TIMES` of day, as 22:00-05:00; one that has begun goes on")
	flags.BoolVar(&f.pause, "pause", false, "with --between: one that has begun stops when the time is over, and is resumed when copies may begin again")
	f.defineRate(flags)
	flags.StringVar(&f.throttle, "throttle", "", "while an overlay is merged, let the guest write at most `BYTES` per second to that disk (default: as it likes)")
	flags.BoolVar(&f.plan, "plan", false, "print what would be copied and how, and do nothing")
	flags.BoolVar(&f.repair, "repair", false, "undo what an interrupted run has left on the domains NAME…")
	flags.StringVar(&f.connect, "connect", "", "libvirt's `URI` (default: LIBVIRT_DEFAULT_URI, or qemu:///system)")
	flags.BoolVar(&f.json, "json", false, "print events as JSON lines")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print warnings and errors only")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print more")
	_ = c.RegisterFlagCompletionFunc("order", cobra.FixedCompletions(orders, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("live", cobra.FixedCompletions(liveWays, cobra.ShellCompDirectiveNoFileComp))
	c.ValidArgsFunction = completeDomains
	return c
}

// completeDomains offers the domains of this host, and directories.
func completeDomains(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	conn := libvirtd.New("")
	defer conn.Close()
	domains, _ := conn.Domains(cmd.Context())
	var names []string
	for _, d := range domains {
		names = append(names, d.Name)
	}
	return names, cobra.ShellCompDirectiveDefault
}

// run does what the flags say: repair, plan or copy.
func (f *domainFlags) run(ctx context.Context, out io.Writer, args []string) error {
	if err := f.check(); err != nil {
		return usageError{err}
	}
	window, err := parseWindow(f.between)
	if err != nil {
		return usageError{err}
	}
	if window != nil {
		window.pauses = f.pause
	}
	throttle, err := parseRate("throttle", f.throttle)
	if err != nil {
		return usageError{err}
	}
	w, err := newWorld(f.logLevel())
	if err != nil {
		return err
	}
	defer w.close()
	conn := libvirtd.New(f.connect)
	defer conn.Close()
	if f.repair {
		return f.repairAll(ctx, w, conn, args, uint64(throttle))
	}
	if len(args) == 0 || len(args) == 1 && !f.all && f.byDisk == "" {
		return usageError{errors.New("the name of a domain and a destination are needed; see imgcp domain --help")}
	}
	o, err := f.domainOptions(w, conn, args[len(args)-1])
	if err != nil {
		return err
	}
	o.Throttle = uint64(throttle)
	domains, err := f.choose(ctx, conn, args[:len(args)-1])
	if err != nil {
		return err
	}
	if !f.plan {
		out = os.Stdout // for a listener, without whom a copy goes on
	}
	show := f.newDomainReporter(out, len(domains))
	sizes := make([]map[string]int64, len(domains))
	for i, d := range domains {
		if sizes[i], err = domain.Estimate(ctx, conn, d); err != nil {
			w.log.Warn("how large its images are is not known", "domain", d.Name, "err", err)
		}
		show.expect(d.Name, sizes[i])
	}
	f.sort(domains, args[:len(args)-1], sizes)
	if f.plan {
		return f.planAll(ctx, domains, o, show)
	}
	return f.copyDomains(ctx, domains, o, show, window)
}

// check refuses values that are not in the help, and options that do not go together.
func (f *domainFlags) check() error {
	switch freeze, mirror := f.live == string(archive.Freeze), f.live == string(archive.Mirror); {
	case !slices.Contains(liveWays, f.live):
		return fmt.Errorf("--live=%s: one of %s", f.live, strings.Join(liveWays, ", "))
	case !slices.Contains(orders, f.order):
		return fmt.Errorf("--order=%s: one of %s", f.order, strings.Join(orders, ", "))
	case f.pause && f.between == "":
		return errors.New("--pause is for --between: it says what happens when the time is over")
	case f.pause && f.shutdown:
		return errors.New("--pause is not for --shutdown: a guest that was shut down would wait for the next window")
	case f.throttle != "" && !freeze:
		return errors.New("--throttle is for --live=freeze: the other ways have no overlay to merge")
	case f.flat && mirror:
		return errors.New("--flat: a mirror keeps the backing chain; --live=freeze or backup makes flat images")
	case f.shutdown && !mirror:
		return errors.New("--shutdown is for --live=mirror: the other ways let the domain run")
	case f.startOn != "" && !f.shutdown || f.startOn == "" && len(f.maps) > 0:
		return errors.New("--start-on is for --live=mirror --shutdown, and --map for --start-on: never do two of one domain run")
	}
	return nil
}

func (f *domainFlags) repairAll(ctx context.Context, w *world, conn *libvirtd.Conn, names []string, throttle uint64) error {
	if len(names) == 0 {
		return usageError{errors.New("--repair: the name of a domain is needed")}
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, domain.Repair(ctx, conn, name, stateDir(), throttle, w.log))
	}
	return errors.Join(errs...)
}

// domainOptions turns flags into options.
func (f *domainFlags) domainOptions(w *world, conn *libvirtd.Conn, dest string) (domain.Options, error) {
	o := domain.Options{
		Conn: conn, Dest: dest, Method: archive.Method(f.live), Scratch: f.scratch, Shutdown: f.shutdown, Flat: f.flat, Secrets: f.secrets, Resume: f.resume,
		StateDir: stateDir(), Log: w.log,
	}
	if f.jobs < 1 {
		return o, usageError{errors.New("--jobs: at least 1")}
	}
	self, err := os.Executable()
	if err != nil {
		return o, fmt.Errorf("find imgcp itself, for the helper process: %w", err)
	}
	o.Self, o.Helper = []string{self}, []string{self, guardianName}
	o.Host, _ = os.Hostname()
	o.Home, _ = os.UserHomeDir()
	o.Copy = copyDefaults(w)
	o.Copy.Verify = f.verify
	if o.Copy.Limit, err = f.limit(); err != nil {
		return o, usageError{err}
	}
	if f.startOn != "" {
		if err := f.startThere(&o, w); err != nil {
			return o, err
		}
	}
	if !f.plan {
		err = os.MkdirAll(dest, 0o711)
	}
	o.Shared = domain.NewShared(dest)
	return o, err
}

// startThere has each domain restored and started elsewhere when it has ended here. What would be in the way is looked for before
// it is asked to end.
func (f *domainFlags) startThere(o *domain.Options, w *world) error {
	maps, err := parseMaps(f.maps)
	if err != nil {
		return err
	}
	to := libvirtd.New(f.startOn)
	ro := restore.Options{Conn: to, Maps: maps, Start: true, Copy: copyDefaults(w), Log: w.log}
	o.Look = func(ctx context.Context, dir string) error { return restore.Look(ctx, dir, ro) }
	o.Then = func(ctx context.Context, dir string) error {
		p, err := restore.New(ctx, dir, ro)
		if err == nil {
			defer p.Close()
			err = p.Run(ctx)
		}
		if err != nil {
			return fmt.Errorf("its copy is whole, and it is shut off: %w", err)
		}
		for _, note := range p.Notes {
			w.log.Warn(note)
		}
		w.log.Info("it runs there; the original is shut off, and must not be started again", "domain", p.Domain, "libvirt", f.startOn)
		return nil
	}
	return nil
}

// choose finds the domains that are meant.
func (f *domainFlags) choose(ctx context.Context, conn *libvirtd.Conn, names []string) ([]libvirtd.Domain, error) {
	all, err := conn.Domains(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b libvirtd.Domain) int { return strings.Compare(a.Name, b.Name) })
	var chosen []libvirtd.Domain
	used := make(map[string]bool)
	for _, d := range all {
		is := f.all
		for _, pattern := range names {
			if _, err := path.Match(pattern, d.Name); err != nil {
				return nil, usageError{fmt.Errorf("%s: %w", pattern, err)}
			}
			if meant(pattern, d) {
				is, used[pattern] = true, true
			}
		}
		for _, pattern := range f.exclude {
			if ok, err := path.Match(pattern, d.Name); err != nil {
				return nil, usageError{fmt.Errorf("--exclude=%s: %w", pattern, err)}
			} else if ok {
				is = false
			}
		}
		if f.byDisk != "" && len(names) == 0 && !f.all {
			if is, err = domain.Uses(ctx, conn, d, f.byDisk); err != nil {
				return nil, err
			}
		}
		if is && (!f.running || d.Active) && (!f.inactive || !d.Active) {
			chosen = append(chosen, d)
		}
	}
	for _, pattern := range names {
		if !used[pattern] {
			return nil, fmt.Errorf("%w: %s (virsh list --all has the names)", libvirtd.ErrNoDomain, pattern)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no domain matches (virsh list --all has the names)")
	}
	return chosen, nil
}

// sort puts the domains, which are in the order of their names, into the order that was asked for.
func (f *domainFlags) sort(domains []libvirtd.Domain, patterns []string, sizes []map[string]int64) {
	rank := make(map[string]int64)
	for i, d := range domains {
		switch f.order {
		case "size":
			for _, n := range sizes[i] {
				rank[d.Name] += n
			}
		case "given":
			rank[d.Name] = int64(slices.IndexFunc(patterns, func(p string) bool { return meant(p, d) }))
			if rank[d.Name] < 0 {
				rank[d.Name] = int64(len(patterns)) // by --all only
			}
		}
	}
	slices.SortStableFunc(domains, func(a, b libvirtd.Domain) int { return cmp.Compare(rank[a.Name], rank[b.Name]) })
}

// meant says whether a NAME on the command line means the domain. The pattern is a valid one.
func meant(pattern string, d libvirtd.Domain) bool {
	ok, _ := path.Match(pattern, d.Name)
	return ok || pattern == d.Name || pattern == d.UUID
}

// copyDomains copies some at once. One that fails does not stop the others.
func (f *domainFlags) copyDomains(ctx context.Context, domains []libvirtd.Domain, o domain.Options, show *domainReporter, w *window) error {
	o.File = show.file
	begin := func() error { return cmp.Or(w.wait(ctx, o.Log), context.Cause(ctx)) }
	errs := atOnce(f.jobs, len(domains), begin, func(i int) error {
		name := domains[i].Name
		show.begin(name)
		var m archive.Manifest
		err := w.run(ctx, o.Log, func(ctx context.Context, again bool) (err error) {
			o := o
			o.Resume = o.Resume || again
			m, err = domain.Copy(ctx, name, o)
			return err
		})
		show.end(name, m, err)
		return err
	})
	names := make([]string, len(domains))
	for i, d := range domains {
		names[i] = d.Name
	}
	return summary("not copied: %d of %d domains; --resume goes on", names, errs)
}

// planAll prints what would be copied.
func (f *domainFlags) planAll(ctx context.Context, domains []libvirtd.Domain, o domain.Options, show *domainReporter) error {
	var errs []error
	for _, d := range domains {
		p, err := domain.MakePlan(ctx, d, o)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.Name, err))
			continue
		}
		rate, _ := parseRate("rate-limit", f.rate) // it was looked at before
		show.plan(p, rate)
	}
	show.planned()
	return errors.Join(errs...)
}

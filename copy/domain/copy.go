// SPDX-License-Identifier: Apache-2.0

// Package domain copies whole domains: their descriptions, disks with backing chains, firmware variables, TPM state, saved
// state, snapshots and checkpoints, while they run or shut off. What a copy looks like on the medium is package archive.
//
// The rule that every part keeps: whatever ends this process, at whatever instruction, the domain is on its own images, or
// Repair brings it there, without an I/O error of the guest's. So what is to be done to a domain is on the medium before it
// is done (intent), and done by libvirt, which survives us.
package domain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	imgcopy "imgward/copy"
	"imgward/copy/dest"
	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
	"imgward/copy/move"
	"imgward/copy/source"
	"imgward/guard"
)

// Options are what all domains of a run have in common.
type Options struct {
	Conn *libvirtd.Conn
	Dest string
	// Method is for running domains: archive.Freeze, archive.Backup or archive.Mirror.
	Method   archive.Method
	Shutdown bool   // by archive.Mirror: ask the guest to shut down when the mirrors are complete
	Flat     bool   // one raw image of each qcow2 disk, without its backing chain
	Throttle uint64 // of a guest's writes to a disk whose overlay is merged, bytes a second; 0: none
	Scratch  string // where overlays go; "": next to the images
	Secrets  bool   // passwords in the XML too
	Resume   bool
	StateDir string          // of intents; see stateDir in cmd/imgcp
	Copy     imgcopy.Options // of each image
	Shared   *Shared         // what other domains of DEST have
	Self     []string        // the command line of imgcp
	Helper   []string        // … of a process that calls live.Guard
	Host     string          // its name, for people
	Home     string          // of the user, where libvirt's session daemon keeps its files
	Log      *slog.Logger
	// Look is asked before anything is done to a running domain, and Then does what is to be done when it has ended with a whole copy,
	// while nobody can start it on its images; both get the directory of the copy. nil: nothing. By archive.Mirror.
	Look, Then func(ctx context.Context, dir string) error
	// File is told of each file before and after it is copied, in turn; nil for nobody.
	File func(domain string, f archive.File, done bool)
}

// run is the copy of one domain under way.
type run struct {
	o      *Options
	d      libvirtd.Domain
	a      *archive.Archive
	desc   *description
	inv    *inventory
	intent *intent
	copy   imgcopy.Options
	claims []func() // of images, to be released at the end
}

// Copy copies one domain to DEST/NAME. What an earlier run has left on the domain is undone first. Errors are those of
// imgcopy.Copy, and dest.ErrExists if there is a copy already and Resume was not asked for. The manifest says how far it is,
// whatever the error.
func Copy(ctx context.Context, name string, o Options) (m archive.Manifest, err error) {
	d, err := o.Conn.Domain(ctx, name)
	if err != nil {
		return m, err
	}
	r := &run{o: &o, d: d, inv: newInventory()}
	if _, err := repair(ctx, o.Conn, d, o.StateDir, o.Throttle, o.Log); err != nil {
		return m, fmt.Errorf("undo what an earlier run left: %w", err)
	}
	if err := strange(ctx, o.Conn, d); err != nil {
		o.Log.Warn(err.Error())
	}
	if r.intent, err = newIntent(o.StateDir, d.UUID); err != nil {
		return m, err
	}
	r.intent.Domain, r.intent.UUID, r.intent.URI, r.intent.Throttle = d.Name, d.UUID, o.Conn.URI(), o.Throttle
	defer r.intent.release()
	if err := r.open(); err != nil {
		return m, err
	}
	defer r.a.Close()
	defer r.release()
	if m = r.a.Manifest(); m.Whole() {
		return m, r.then(ctx, r.unchanged)
	}
	err = imgcopy.Cause(ctx, r.run(ctx))
	noteErr := r.a.Update(func(m *archive.Manifest) {
		m.Error, m.Finished = "", time.Time{}
		if err != nil {
			m.Error = err.Error()
		} else {
			m.Finished = time.Now()
		}
	})
	if err = errors.Join(err, noteErr); err == nil {
		err = r.then(ctx, nil)
	}
	return r.a.Manifest(), move.OutOfSpace(err)
}

// then has done what comes after a copy of a domain that ran and has ended.
func (r *run) then(ctx context.Context, check func(context.Context) error) error {
	if m := r.a.Manifest(); r.o.Then == nil || !m.Running || m.Method != archive.Mirror {
		return nil
	}
	if check != nil {
		if err := check(ctx); err != nil {
			return err
		}
	}
	switch now, err := r.o.Conn.Again(ctx, r.d); {
	case err == nil && now.Active:
		return fmt.Errorf("domain %s was started again: its copy is from before that", r.d.Name)
	case err != nil && !errors.Is(err, libvirtd.ErrNoDomain):
		return err
	}
	return r.o.Then(ctx, r.a.Dir)
}

// unchanged makes sure that a copy from an earlier run has all of a domain that does not run, and claims its images.
func (r *run) unchanged(ctx context.Context) error {
	text, err := r.o.Conn.XML(ctx, r.d, libvirtd.XML{Inactive: true})
	if err == nil {
		r.desc, err = describe(ctx, text, r.o.Conn)
	}
	if err != nil {
		return err
	}
	r.copy = r.o.Copy
	if err := r.claimAll(ctx); err != nil {
		return err
	}
	for _, f := range r.a.Manifest().Files {
		if f.Identity != nil && changed(&f) {
			return fmt.Errorf("%s was written to since it was copied: the copy is from before that", f.Source)
		}
	}
	return nil
}

func (r *run) release() {
	for _, release := range r.claims {
		release()
	}
}

// open makes the directory of the copy, or opens the one that is there to go on with it.
func (r *run) open() (err error) {
	if r.o.Resume {
		if r.a, err = archive.Resume(r.o.Dest, r.d.Name); !errors.Is(err, archive.ErrNone) {
			return err
		}
	}
	r.a, err = archive.Create(r.o.Dest, r.d.Name)
	if errors.Is(err, fs.ErrExist) {
		err = dest.Conflict(filepath.Join(r.o.Dest, r.d.Name) + " has a copy of the domain already; --resume goes on with it")
	}
	return err
}

func (r *run) run(ctx context.Context) error {
	if err := r.describe(ctx); err != nil {
		return err
	}
	if err := r.takeStock(ctx); err != nil {
		return err
	}
	r.copy = r.o.Copy
	r.copy.Alone = true // what else an image needs is copied as well
	r.copy.Users = others{r.copy.Users, r.d}
	r.copy.Resume, r.copy.Digest = true, true
	if r.o.Look != nil && r.d.Active {
		if err := r.o.Look(ctx, r.a.Dir); err != nil {
			return err
		}
	}
	if !r.d.Active {
		return r.offline(ctx)
	}
	switch r.o.Method {
	case archive.Freeze:
		return r.freeze(ctx)
	case archive.Backup:
		return r.backup(ctx)
	case archive.Mirror:
		return r.mirror(ctx)
	}
	return fmt.Errorf("a running domain cannot be copied by %q", r.o.Method)
}

// describe saves what libvirt says of the domain, the live XML first of all: of a transient domain nothing else is left when
// it ends.
func (r *run) describe(ctx context.Context) error {
	persistent, err := r.o.Conn.Persistent(ctx, r.d)
	if err != nil {
		return err
	}
	var text string
	for _, x := range []struct {
		path     string
		inactive bool
		there    bool
	}{{archive.LiveXML, false, r.d.Active}, {archive.InactiveXML, true, persistent}} {
		if !x.there {
			continue
		}
		s, err := r.o.Conn.XML(ctx, r.d, libvirtd.XML{Inactive: x.inactive, Secrets: r.o.Secrets})
		if err == nil {
			err = r.text(x.path, archive.File{Kind: archive.XML}, s)
		}
		if err != nil {
			return err
		}
		if text == "" {
			text = s
		}
	}
	err = r.a.Update(func(m *archive.Manifest) {
		m.Domain, m.UUID, m.Host, m.Running, m.Transient = r.d.Name, r.d.UUID, r.o.Host, r.d.Active, !persistent
		if m.Begun.IsZero() {
			m.Begun = time.Now()
		}
		m.Method = archive.Offline
		if r.d.Active {
			m.Method = r.o.Method
		}
		m.Flat = m.Method == archive.Backup || r.o.Flat
	})
	if err != nil {
		return err
	}
	r.desc, err = describe(ctx, text, r.o.Conn)
	return err
}

// text puts a small file of libvirt's words into the copy.
func (r *run) text(name string, f archive.File, s string) error {
	if err := r.a.WriteFile(name, []byte(s)); err != nil {
		return err
	}
	f.Path, f.Size, f.State, f.BLAKE3 = name, int64(len(s)), archive.Copied, sumOf([]byte(s))
	r.inv.names[name] = true
	r.inv.files = append(r.inv.files, f)
	return nil
}

// takeStock writes down everything that is to be copied, before anything is.
func (r *run) takeStock(ctx context.Context) error {
	omitted, err := r.stock(ctx)
	if err != nil {
		return err
	}
	missing, err := r.metadata(ctx)
	if err != nil {
		return err
	}
	return r.a.Update(func(m *archive.Manifest) {
		m.Omitted = append(omitted, missing...)
		m.Files = r.merged(m.Files)
	})
}

// stock takes note of the files of a domain, and of what it has that cannot be copied.
func (r *run) stock(ctx context.Context) ([]archive.Omission, error) {
	pulled, mirrored := r.d.Active && r.o.Method == archive.Backup, r.d.Active && r.o.Method == archive.Mirror
	omitted := r.desc.omissions(pulled)
	for i := range r.desc.Disks {
		d := &r.desc.Disks[i]
		if (pulled || mirrored) && (d.changes() || d.remote()) && (d.Encrypted != nil || d.Source.Encryption != nil) {
			return omitted, fmt.Errorf("%s is encrypted, and QEMU would write its copy in the clear: --live=freeze copies it as it is", d.Target.Dev)
		}
		switch {
		case pulled && d.remote():
			size, err := r.o.Conn.DiskSize(ctx, r.d, d.Target.Dev)
			if err != nil {
				return omitted, err
			}
			r.inv.addRaw(d, d.Source.remoteName(), size)
		case d.path == "":
		case d.Shareable != nil && r.d.Active:
			omitted = append(omitted, archive.Omission{Target: d.Target.Dev, Source: d.path,
				Why: "a shared disk, which others may be writing to: shut its domains down to copy it"})
		case pulled && d.changes(), r.o.Flat && d.writable() && d.format() != "raw":
			if err := r.inv.pulled(d); err != nil {
				return omitted, err
			}
		default:
			if err := r.inv.disk(ctx, d); err != nil {
				return omitted, err
			}
		}
	}
	for _, f := range r.inv.files {
		if mirrored && r.isMirrored(&f) && f.Data != "" {
			return omitted, fmt.Errorf("%s has its data in a file of its own (%s), which a mirror has not: --live=freeze copies both", f.Target, f.Data)
		}
	}
	if err := r.inv.others(r.desc); err != nil {
		return omitted, err
	}
	return omitted, r.savedState(ctx)
}

// merged keeps what an earlier run has copied of what is to be copied now.
func (r *run) merged(before []archive.File) []archive.File {
	old := make(map[string]archive.File)
	for _, f := range before {
		old[f.Path] = f
	}
	for i := range r.inv.files {
		f := &r.inv.files[i]
		was, ok := old[f.Path]
		if ok && f.State == archive.Pending && was.State.Whole() && was.Source == f.Source && was.Backing == f.Backing && was.Data == f.Data &&
			was.Format == f.Format && !changed(&was) {
			was.Kind, was.Target = f.Kind, f.Target
			*f = was
		}
	}
	return r.inv.files
}

// identify looks at the images again: of an image that was in use only the last look counts.
func (r *run) identify() error {
	for i := range r.inv.files {
		f := &r.inv.files[i]
		if f.Source == "" || f.State.Whole() && !changed(f) {
			continue
		}
		if err := reidentify(f); err != nil {
			return err
		}
	}
	return r.a.Update(func(m *archive.Manifest) { m.Files = r.inv.files })
}

// copyFiles copies the pending files that are wanted, nil for all.
func (r *run) copyFiles(ctx context.Context, wanted func(*archive.File) bool) error {
	for i := range r.inv.files {
		f := &r.inv.files[i]
		if f.State.Whole() || wanted != nil && !wanted(f) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		r.report(f, false)
		if err := r.finished(ctx, f, r.copy.Verify && isImage(f), r.file(ctx, f)); err != nil {
			return err
		}
	}
	return nil
}

// finished writes down and reports what became of a file: a copy, compared with its source if verified is set, unless err says
// otherwise. It returns err, and what went wrong here.
func (r *run) finished(ctx context.Context, f *archive.File, verified bool, err error) error {
	f.State, f.Error = archive.Copied, ""
	switch {
	case err != nil:
		f.State, f.Error, f.BLAKE3 = archive.Failed, imgcopy.Cause(ctx, err).Error(), ""
	case verified:
		f.State = archive.Verified
	}
	if e := r.a.Update(func(m *archive.Manifest) { *m.Find(f.Path) = *f }); e != nil {
		return errors.Join(err, e)
	}
	r.report(f, true)
	return err
}

func (r *run) report(f *archive.File, done bool) {
	if r.o.File != nil {
		r.o.File(r.d.Name, *f, done)
	}
}

// file copies one file, or links the copy that another domain has.
func (r *run) file(ctx context.Context, f *archive.File) error {
	if err := r.a.MkdirFor(f.Path); err != nil {
		return err
	}
	if err := r.a.Remove(f.Path); err != nil { // of a run that ended before it was written down
		return err
	}
	if !isImage(f) {
		return r.small(f)
	}
	return r.o.Shared.once(r.a, f, func() error { return r.image(ctx, f) })
}

// image copies an image and makes the names in it its own.
func (r *run) image(ctx context.Context, f *archive.File) error {
	o := r.copy
	o.Header, o.Progress = r.header(f), new(move.Progress)
	if id, _, err := statID(f.Source); err == nil && r.inv.flat[id] && f.Kind == archive.Disk {
		o.Flat, o.Resume = true, false
	}
	result, err := imgcopy.Copy(ctx, f.Source, r.a.Path(f.Path), o)
	f.Size, f.BLAKE3 = result.Size, result.Digest
	return err
}

func isImage(f *archive.File) bool {
	switch f.Kind {
	case archive.Disk, archive.Backing, archive.DataFile, archive.CDROM, archive.Floppy, archive.ManagedSave, archive.Memory:
		return true
	}
	return false
}

// others leaves out the domain's own uses: that they do not write is what the method sees to.
type others struct {
	source.Users
	d libvirtd.Domain
}

// InUse implements source.Users.
func (o others) InUse(ctx context.Context, f *os.File) ([]guard.Use, error) {
	uses, err := o.Users.InUse(ctx, f)
	kept := uses[:0]
	for _, u := range uses {
		if u.UUID != o.d.UUID || u.Evidence == guard.EvidenceLock {
			kept = append(kept, u)
		}
	}
	return kept, err
}

// offline copies a domain that does not run. Its images are locked meanwhile, as QEMU locks them, so that it cannot be started
// on them before all are copied.
func (r *run) offline(ctx context.Context) error {
	for i := range r.desc.Disks {
		d := &r.desc.Disks[i]
		if !d.writable() {
			continue
		}
		release, err := r.claim(d)
		if err != nil {
			return err
		}
		defer release()
	}
	now, err := r.o.Conn.Again(ctx, r.d)
	if err != nil {
		return err
	}
	if now.Active {
		return fmt.Errorf("domain %s was started just now: copy it again", r.d.Name)
	}
	if err := r.identify(); err != nil {
		return err
	}
	if err := r.a.Update(func(m *archive.Manifest) { m.Instant = time.Now() }); err != nil {
		return err
	}
	return r.copyFiles(ctx, nil)
}

func (r *run) claim(d *disk) (func(), error) {
	f, err := os.Open(d.path)
	if err != nil {
		return nil, err
	}
	release, err := r.copy.Locks.Read(f)
	if errors.Is(err, source.ErrInUse) {
		err = fmt.Errorf("%s (%s): %w; QEMU, or somebody who locks as QEMU does, has it open", d.Target.Dev, d.path, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { release(); f.Close() }, nil
}

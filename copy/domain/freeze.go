// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"imgward/copy/domain/archive"
	"imgward/copy/internal/sys"
	"imgward/copy/live"
	"imgward/copy/move"
	"imgward/guard"
)

// freeze copies the disks of a running domain as they are at one instant. One snapshot of all that the guest writes to, which
// libvirt takes at once and keeps no record of, sends the guest's writes to overlays; what is below cannot change any more
// and is copied; then each overlay is merged back, and the domain is on its own images again. That is written down before it
// is done (intent), and a guardian has it undone when this process is killed.
func (r *run) freeze(ctx context.Context) error {
	overlays, err := r.planOverlays()
	if err != nil {
		return err
	}
	if len(overlays) == 0 {
		return r.copyFiles(ctx, nil)
	}
	if err := r.idle(ctx); err != nil {
		return err
	}
	if err := spaceFor(overlays); err != nil {
		return err
	}
	r.intent.Method, r.intent.Overlays = archive.Freeze, overlays
	return r.changing(ctx, func(m *merger) error {
		if err := r.snapshot(ctx); err != nil {
			return err
		}
		return r.whileFrozen(ctx, m)
	})
}

// changing writes down what is about to be done to the domain, has do do it, and undoes it, interrupted or not. The guardian
// is there before anything is written down: what is on the medium has somebody to undo it.
func (r *run) changing(ctx context.Context, do func(*merger) error) error {
	guardian, err := live.StartUndo(r.o.Helper, append(r.o.Self, "domain", "--connect", r.o.Conn.URI(), "--repair", "--", r.d.Name))
	if err != nil {
		return err
	}
	defer guardian.Dismiss()
	r.intent.Begun = time.Now()
	if err := r.intent.save(); err != nil {
		return err
	}
	m := &merger{conn: r.o.Conn, d: r.d, in: r.intent, log: r.o.Log, limit: mergeLimit}
	err = do(m)
	left := m.all(context.WithoutCancel(ctx))
	if left != nil && errors.Is(err, errUnmerged) {
		return left // which says why
	}
	return errors.Join(err, left)
}

// errUnmerged ends a copy whose overlays could not be merged; merger.all tries that again.
var errUnmerged = errors.New("an overlay could not be merged")

// planOverlays chooses where the guest's writes go.
func (r *run) planOverlays() (overlays []overlay, err error) {
	for i := range r.desc.Disks {
		d := &r.desc.Disks[i]
		if !d.changes() {
			continue
		}
		dir := r.o.Scratch
		switch {
		case dir == "" && !isDevice(d.path):
			dir = filepath.Dir(d.path)
		case dir == "":
			return nil, fmt.Errorf("%s is the block device %s: name a directory for its overlay with --scratch", d.Target.Dev, d.path)
		}
		var b [4]byte
		rand.Read(b[:])
		// AppArmor's helper of libvirt reads what ends in .qcow2, and nothing hidden in some places.
		name := filepath.Base(d.path) + ".imgcp-" + hex.EncodeToString(b[:]) + ".qcow2"
		overlays = append(overlays, overlay{Target: d.Target.Dev, Image: d.path, Format: d.format(),
			File: filepath.Join(dir, name), Phase: inOverlay})
	}
	return overlays, nil
}

// idle makes sure that no disk has a block job: a snapshot would fail, or end somebody's work.
func (r *run) idle(ctx context.Context) error {
	for i := range r.desc.Disks {
		d := &r.desc.Disks[i]
		if d.path == "" && !d.remote() {
			continue
		}
		job, err := r.o.Conn.BlockJob(ctx, r.d, d.Target.Dev)
		if err != nil {
			return err
		}
		if job != nil || d.Mirror != nil {
			return fmt.Errorf("%s of domain %s has a block job (virsh blockjob %s %s): wait for it, or end it, then copy", d.Target.Dev,
				r.d.Name, guard.ShellWord(r.d.Name), d.Target.Dev)
		}
	}
	return nil
}

// snapshotXML describes the snapshot (formatsnapshot.html). Every disk is named: one that is not would get an overlay of
// libvirt's own choice.
func (r *run) snapshotXML() (string, error) {
	type source struct {
		File string `xml:"file,attr"`
	}
	type driver struct {
		Type string `xml:"type,attr"`
	}
	type snapDisk struct {
		Name     string  `xml:"name,attr"`
		Snapshot string  `xml:"snapshot,attr"`
		Type     string  `xml:"type,attr,omitempty"`
		Driver   *driver `xml:"driver"`
		Source   *source `xml:"source"`
	}
	s := struct {
		XMLName xml.Name   `xml:"domainsnapshot"`
		Disks   []snapDisk `xml:"disks>disk"`
	}{}
	for i := range r.desc.Disks {
		d := snapDisk{Name: r.desc.Disks[i].Target.Dev, Snapshot: "no"}
		for _, o := range r.intent.Overlays {
			if o.Target == d.Name {
				d.Snapshot, d.Type, d.Driver, d.Source = "external", "file", &driver{"qcow2"}, &source{o.File}
			}
		}
		s.Disks = append(s.Disks, d)
	}
	b, err := xml.Marshal(s)
	return string(b), err
}

// snapshot takes it, with the guest's file systems frozen for that moment if an agent answers.
func (r *run) snapshot(ctx context.Context) error {
	text, err := r.snapshotXML()
	if err != nil {
		return err
	}
	quiesce := r.o.Conn.AgentAnswers(ctx, r.d)
	if !quiesce {
		r.o.Log.Info("no guest agent answers: the copy is what a power cut would leave", "domain", r.d.Name)
	}
	begun := time.Now()
	err = r.o.Conn.SnapshotDisks(ctx, r.d, text, quiesce)
	if err != nil && quiesce && ctx.Err() == nil {
		r.o.Log.Warn("the guest's agent could not freeze its file systems; taking the disks without", "domain", r.d.Name, "err", err)
		quiesce = false
		err = r.o.Conn.SnapshotDisks(ctx, r.d, text, false)
	}
	if err != nil {
		return err
	}
	r.o.Log.Info("the disks stand still, the guest's writes go to overlays", "domain", r.d.Name, "snapshot took",
		time.Since(begun).Round(time.Millisecond))
	if err := r.allFrozen(ctx); err != nil {
		return err
	}
	if err := r.identify(); err != nil {
		return err
	}
	return r.a.Update(func(m *archive.Manifest) { m.Instant, m.Quiesced = begun, quiesce })
}

// allFrozen looks for a disk that came or went between the description and the snapshot.
func (r *run) allFrozen(ctx context.Context) error {
	now, err := lookAt(ctx, r.o.Conn, r.d)
	if err != nil {
		return err
	}
	frozen := make(map[string]string)
	for _, o := range r.intent.Overlays {
		frozen[o.Target] = o.File
	}
	for i := range now.Disks {
		d := &now.Disks[i]
		if d.changes() && d.path != frozen[d.Target.Dev] {
			return fmt.Errorf("disk %s (%s) was added to domain %s just now: copy it again", d.Target.Dev, d.path, r.d.Name)
		}
		delete(frozen, d.Target.Dev)
	}
	for target := range frozen {
		return fmt.Errorf("disk %s of domain %s was unplugged just now: copy it again", target, r.d.Name)
	}
	return nil
}

// whileFrozen copies, and brings each disk back as soon as its own image is there: what is further down does not change
// anyway.
func (r *run) whileFrozen(ctx context.Context, m *merger) error {
	ctx, stop := watchSpace(ctx, r.intent.Overlays)
	defer stop()
	for i := range m.in.Overlays {
		o := &m.in.Overlays[i]
		if err := r.copyFiles(ctx, func(f *archive.File) bool { return r.top(f, o.Target) }); err != nil {
			return err
		}
		if err := m.disk(ctx, o); err != nil {
			return fmt.Errorf("%w: %s of domain %s: %w", errUnmerged, o.Target, r.d.Name, err)
		}
	}
	stop()
	return r.copyFiles(ctx, nil)
}

// top says whether a file is a disk's own image, or the data file of that: what the guest would write to.
func (r *run) top(f *archive.File, target string) bool {
	if f.Target != target {
		return false
	}
	if f.Kind == archive.Disk {
		return true
	}
	for i := range r.inv.files {
		if d := &r.inv.files[i]; d.Kind == archive.Disk && d.Target == target && d.Data == f.Path {
			return true
		}
	}
	return false
}

// A file system with overlays that fills up pauses the guests. So there must be a reserve at the beginning, and when it is
// touched the copy is given up and the overlays are merged while there is room.
const (
	reserveMost  = 1 << 30
	reservePart  = 10 // or a tenth of the file system
	reserveEvery = time.Second
)

// errOverlaySpace ends a copy.
var errOverlaySpace = errors.New("the file system of the overlays is running out of space: the copy was given up so that the guest's " +
	"writes could be merged in time; name another directory with --scratch")

// room is the free space where a file is, and what must stay free.
func room(file string) (free, reserve int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(file), &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: filepath.Dir(file), Err: err}
	}
	return int64(st.Bavail) * st.Bsize, min(reserveMost, int64(st.Blocks)*st.Bsize/reservePart), nil
}

func spaceFor(overlays []overlay) error {
	for _, o := range overlays {
		free, reserve, err := room(o.File)
		if err != nil {
			return err
		}
		if free < reserve {
			return fmt.Errorf("%w: %s has %s free, and the overlay of %s needs at least %s while the image is copied; name another "+
				"directory with --scratch", move.ErrNoSpace, filepath.Dir(o.File), move.Bytes(free), o.Target, move.Bytes(reserve))
		}
	}
	return nil
}

// watchSpace ends the context when there is no room for what the guest writes.
func watchSpace(ctx context.Context, overlays []overlay) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	watching, stop := context.WithCancel(ctx)
	go func() {
		for sys.Sleep(watching, reserveEvery) == nil {
			for _, o := range overlays {
				if free, reserve, err := room(o.File); err == nil && free < reserve {
					cancel(fmt.Errorf("%w: %w", move.ErrNoSpace, errOverlaySpace))
				}
			}
		}
	}()
	return ctx, stop
}

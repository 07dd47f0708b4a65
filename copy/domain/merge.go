// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"imgward/copy/domain/libvirtd"
	"imgward/copy/internal/sys"
	"imgward/guard"
)

// merger brings a domain's disks back from their overlays.
type merger struct {
	conn *libvirtd.Conn
	d    libvirtd.Domain
	in   *intent
	log  *slog.Logger
	// Limit is for how long one disk's merge may go on; beyond, the disk stays on its overlay for --repair.
	limit time.Duration

	waited bool // for libvirt to have done what an earlier run asked for
}

// mergeLimit: a merge that a guest outruns for so long has to wait for a quieter hour.
const (
	mergeLimit = time.Hour
	mergePoll  = 100 * time.Millisecond
)

// all brings every disk back, and forgets the intent when nothing is left. What fails for one disk does not keep the others.
func (m *merger) all(ctx context.Context) error {
	var errs []error
	for i := range m.in.Overlays {
		err := m.disk(ctx, &m.in.Overlays[i])
		if errors.Is(err, errAway) {
			return m.away()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s of domain %s: %w", m.in.Overlays[i].Target, m.in.Domain, err))
		}
	}
	errs = append(errs, m.endBackup(ctx), m.endMirrors(ctx), m.redefineHome(ctx))
	if err := errors.Join(errs...); err != nil {
		return errors.Join(append(errs, fmt.Errorf("to try again: imgcp domain --repair %s", guard.ShellWord(m.in.Domain)))...)
	}
	return m.in.done()
}

// disk brings one disk back. Its guest is slowed down no longer than that takes.
func (m *merger) disk(ctx context.Context, o *overlay) error {
	err := m.bringBack(ctx, o)
	if errors.Is(err, errAway) {
		return err
	}
	return errors.Join(err, m.unslow(ctx, o))
}

func (m *merger) bringBack(ctx context.Context, o *overlay) error {
	if o.Phase == back {
		return m.discard(o)
	}
	now, active, err := m.source(ctx, o.Target)
	if err == nil && active && now == o.Image && o.Phase == inOverlay {
		// The snapshot may still be under way, or about to begin.
		if err := m.waitForLibvirt(ctx); err != nil {
			return err
		}
		now, active, err = m.source(ctx, o.Target)
	}
	if err == nil && !active {
		err = m.here(ctx)
	}
	switch {
	case err != nil:
		return err
	case now == o.File && active:
		return m.live(ctx, o)
	case now == o.File:
		return m.offline(ctx, o, true)
	case now == o.Image && (active || o.Phase == pivoting):
		return m.returned(o) // pivoted, or it never left
	case now == o.Image && !exists(o.File):
		return m.returned(o)
	case now == o.Image:
		// Shut off, and its definition names the image: a snapshot changes that as well as the running domain, so the
		// overlay was never in use, unless the domain was started again from a definition of before.
		return m.unused(o)
	case now == "" && o.Phase == inOverlay && exists(o.File):
		return m.offline(ctx, o, false) // the domain or the disk is gone, and the guest's last writes are in the overlay
	case now == "" && !exists(o.File):
		return m.returned(o)
	case now == "":
		return fmt.Errorf("the domain is gone, and whether it last wrote to %s or to its overlay %s is not known: they were equal "+
			"when it was last seen. Compare them (qemu-img compare), and remove the overlay", o.Image, o.File)
	}
	return fmt.Errorf("it is %s by now, which is neither %s nor the overlay %s: somebody else has changed it, and has to say which is meant",
		now, o.Image, o.File)
}

// snapshotLimit is how long a snapshot may take, with a guest whose agent is slow to freeze and thaw.
const snapshotLimit = 5 * time.Minute

// underway is how long libvirt may have a request lie before it begins: its caller's end and a new connection take longer.
const underway = time.Second

// waitForLibvirt waits until libvirt has done what a killed or interrupted run has asked of it. It does so once.
func (m *merger) waitForLibvirt(ctx context.Context) error {
	if m.waited {
		return nil
	}
	for range 2 {
		err := m.conn.WaitForJobs(ctx, m.d)
		for end := time.Now().Add(snapshotLimit); errors.Is(err, libvirtd.ErrBusy) && time.Now().Before(end); {
			err = m.conn.WaitForJobs(ctx, m.d)
		}
		if errors.Is(err, libvirtd.ErrNoDomain) || errors.Is(err, libvirtd.ErrInvalid) {
			break // it does not run any more
		}
		if err != nil {
			return err
		}
		time.Sleep(underway)
	}
	m.waited = true
	return nil
}

// source is the image that a disk has in the running domain, or in the definition of one that is shut off; "" if there is
// no such domain or disk.
func (m *merger) source(ctx context.Context, target string) (path string, active bool, err error) {
	desc, active, err := m.describe(ctx)
	if err != nil || desc == nil {
		return "", false, err
	}
	for i := range desc.Disks {
		if desc.Disks[i].Target.Dev == target {
			return desc.Disks[i].path, active, nil
		}
	}
	return "", active, nil
}

// describe looks at the domain as it runs, or at the definition of one that is shut off; nil if there is none.
func (m *merger) describe(ctx context.Context) (desc *description, active bool, err error) {
	d, err := m.conn.Again(ctx, m.d)
	if err == nil {
		m.d = d
		desc, err = lookAt(ctx, m.conn, d)
	}
	if errors.Is(err, libvirtd.ErrNoDomain) {
		return nil, false, nil
	}
	return desc, d.Active, err
}

// live merges while the domain runs, and goes on with a merge that an earlier run began.
func (m *merger) live(ctx context.Context, o *overlay) error {
	if err := m.slow(ctx, o); err != nil {
		return err
	}
	end := time.Now().Add(m.limit)
	for begun := false; ; begun = true {
		job, err := m.conn.BlockJob(ctx, m.d, o.Target)
		if err != nil {
			return m.look(ctx, o, err)
		}
		switch {
		case job == nil && begun && o.Phase != pivoting:
			// It ended by itself: it failed, for example with no space on the image's file system.
			if now, _, err := m.source(ctx, o.Target); err != nil || now == o.File {
				return errors.Join(err, errors.New("the merge of the overlay failed; libvirt's log of the domain says why"))
			}
			return m.returned(o)
		case job == nil:
			if err = m.conn.CommitActive(ctx, m.d, o.Target, o.File); err != nil {
				if job, e := m.conn.BlockJob(ctx, m.d, o.Target); e == nil && job != nil && job.Commit {
					err = nil // a killed run has asked for it just before
				}
			}
		case !job.Commit:
			return errors.New("another block job is at work on it; end that (virsh blockjob), then repair")
		case job.Done >= job.All:
			err = m.pivot(ctx, o)
			if err == nil {
				return m.returned(o)
			}
		}
		if err != nil && !errors.Is(err, libvirtd.ErrNotReady) && !errors.Is(err, libvirtd.ErrBusy) { // busy: a migration, for one
			return m.look(ctx, o, err)
		}
		if time.Now().After(end) {
			return errors.Join(fmt.Errorf("the guest writes faster than its overlay %s can be merged, for %v now; --throttle=RATE slows it down",
				o.File, m.limit), m.conn.AbortBlockJob(ctx, m.d, o.Target))
		}
		if err := sys.Sleep(ctx, mergePoll); err != nil {
			return err
		}
	}
}

// pivot makes the image the disk again. That this may have happened is on the medium before.
func (m *merger) pivot(ctx context.Context, o *overlay) error {
	if o.Phase != pivoting {
		o.Phase = pivoting
		if err := m.in.save(); err != nil {
			return err
		}
	}
	return m.conn.Pivot(ctx, m.d, o.Target)
}

// look is for a call that failed: libvirt may have been restarted after it did it, or the domain has ended meanwhile.
func (m *merger) look(ctx context.Context, o *overlay, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	now, active, err := m.source(ctx, o.Target)
	if err != nil || now == o.File && active {
		return errors.Join(cause, err)
	}
	return m.bringBack(ctx, o)
}

// returned takes note that the disk is its own image again.
func (m *merger) returned(o *overlay) error {
	o.Phase = back
	if err := m.in.save(); err != nil {
		return err
	}
	return m.discard(o)
}

// removeFor is how long an overlay may still be in use: QEMU closes it some time after the pivot, and a view hears of that
// later still.
const removeFor = 10 * time.Second

// discard removes an overlay that is waste.
func (m *merger) discard(o *overlay) error {
	var err error
	for end := time.Now().Add(removeFor); ; time.Sleep(mergePoll) {
		err = os.Remove(o.File)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("remove the overlay, which is not needed any more: %w", err)
		}
	}
}

// unused removes an overlay that no guest has written to, and keeps any other.
func (m *merger) unused(o *overlay) error {
	out, err := exec.Command("qemu-img", "map", "--output=json", "-f", "qcow2", o.File).Output()
	if err == nil && !strings.Contains(string(out), `"depth": 0`) {
		return m.returned(o)
	}
	return errors.Join(err, fmt.Errorf("the domain is shut off and its definition names %s, but the overlay %s has writes of the guest; "+
		"if they are to be kept: qemu-img commit -f qcow2 %s; else remove it; then repair", o.Image, o.File, o.File))
}

// offline merges the overlay of a domain that does not run. QEMU's image locks keep it out where a domain does, be it on
// another host.
func (m *merger) offline(ctx context.Context, o *overlay, defined bool) error {
	if defined {
		saved, err := m.conn.Saved(ctx, m.d)
		if err != nil {
			return err
		}
		if saved {
			return fmt.Errorf("the domain is saved with its disk on the overlay %s: start it (virsh start %s), then repair", o.File, guard.ShellWord(m.in.Domain))
		}
	}
	m.log.Info("merging the overlay of a domain that does not run", "domain", m.in.Domain, "disk", o.Target, "overlay", o.File)
	cmd := exec.CommandContext(ctx, "qemu-img", "commit", "-q", "-f", "qcow2", o.File)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img commit %s: %w: %s", o.File, err, strings.TrimSpace(string(out)))
	}
	if defined {
		if err := redefine(ctx, m.conn, m.d, *o); err != nil {
			return err
		}
	}
	return m.returned(o)
}

// redefine gives a domain's definition the images in the place of overlays.
func redefine(ctx context.Context, conn *libvirtd.Conn, d libvirtd.Domain, overlays ...overlay) error {
	was, err := conn.XML(ctx, d, libvirtd.XML{Inactive: true, Secrets: true})
	text := was
	for i := range overlays {
		if err == nil {
			text, err = withoutOverlay(text, &overlays[i])
		}
	}
	if err != nil || text == was {
		return err
	}
	_, err = conn.Define(ctx, text)
	return err
}

// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	imgcopy "imgward/copy"
	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
	"imgward/copy/internal/sys"
	"imgward/copy/move"
	"imgward/copy/source"
)

// mirror is one disk whose writes go to its copy as well.
type mirror struct {
	Target string `json:"target"`
	File   string `json:"file"` // the copy
}

// mirror copies the disks of a running domain until it ends: QEMU repeats each write of the guest's in the copy before the guest
// is told that it is done, so that the copies end with the guest's last write. What is below the disks' own images does not
// change and is copied before.
func (r *run) mirror(ctx context.Context) error {
	files := r.mirrored()
	if len(files) == 0 {
		return r.copyFiles(ctx, nil)
	}
	if err := r.idle(ctx); err != nil {
		return err
	}
	if err := r.copyFiles(ctx, func(f *archive.File) bool { return !r.isMirrored(f) }); err != nil {
		return err
	}
	r.intent.Method = archive.Mirror
	if err := r.roomForMirrors(files); err != nil {
		return err
	}
	for _, f := range files {
		f.State, f.BLAKE3 = archive.Pending, "" // an earlier run's is about to be replaced
		r.intent.Mirrors = append(r.intent.Mirrors, mirror{f.Target, r.a.Path(f.Path)})
	}
	if err := r.a.Update(func(m *archive.Manifest) { m.Files = r.inv.files }); err != nil {
		return err
	}
	err := r.changing(ctx, func(*merger) error {
		for _, f := range files {
			r.report(f, false)
			if err := r.beginMirror(ctx, f); err != nil {
				return err
			}
		}
		return r.untilEnd(ctx)
	})
	if err != nil {
		return err
	}
	return r.ended(ctx, files)
}

// isMirrored: the disks that the guest writes to.
func (r *run) isMirrored(f *archive.File) bool {
	return f.Kind == archive.Disk && slices.Contains(r.written(), f.Target)
}

func (r *run) mirrored() (files []*archive.File) {
	for i := range r.inv.files {
		if f := &r.inv.files[i]; r.isMirrored(f) {
			files = append(files, f)
		}
	}
	return files
}

// little is what a full file system has left.
const little = 1 << 20

// roomForMirrors makes sure that DEST has room for the data of these images, and is not full.
func (r *run) roomForMirrors(files []*archive.File) error {
	free, _, err := room(r.a.Path(archive.Name))
	need := int64(little)
	for _, f := range files {
		need += allocated(f)
	}
	if err == nil && free < need {
		err = fmt.Errorf("%w: %s has %s free, and %s are needed", move.ErrNoSpace, r.o.Dest, move.Bytes(free), move.Bytes(need))
	}
	return err
}

// beginMirror makes the copy of one disk, empty and on the copy of its backing file, and has QEMU fill it.
func (r *run) beginMirror(ctx context.Context, f *archive.File) error {
	if err := r.makeTarget(ctx, f); err != nil {
		return err
	}
	type driver struct {
		Name string `xml:"name,attr"`
		Type string `xml:"type,attr"`
	}
	type src struct {
		File string `xml:"file,attr"`
	}
	b, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"disk"`
		Type    string   `xml:"type,attr"`
		Driver  driver   `xml:"driver"`
		Source  src      `xml:"source"`
	}{Type: "file", Driver: driver{"qemu", f.Format}, Source: src{r.a.Path(f.Path)}})
	if err != nil {
		return err
	}
	var bandwidth uint64
	if r.copy.Limit != nil {
		bandwidth = uint64(r.copy.Limit.Limit()) / uint64(len(r.intent.Mirrors))
	}
	err = r.o.Conn.MirrorTo(ctx, r.d, f.Target, string(b), f.Backing != "", bandwidth)
	if err != nil {
		return fmt.Errorf("%w (QEMU, which runs as its own user, must be able to reach %s)", err, r.a.Dir)
	}
	return nil
}

func (r *run) makeTarget(ctx context.Context, f *archive.File) error {
	var info struct {
		Size    int64 `json:"virtual-size"`
		Cluster int64 `json:"cluster-size"`
	}
	out, err := exec.CommandContext(ctx, "qemu-img", "info", "-U", "-f", f.Format, "--output=json", f.Source).Output()
	if err == nil {
		err = json.Unmarshal(out, &info)
	}
	if err != nil {
		return fmt.Errorf("qemu-img info %s: %w", f.Source, err)
	}
	file, err := r.a.Create(f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	if f.Format == "raw" {
		return file.Truncate(info.Size)
	}
	args := []string{"create", "-q", "-f", f.Format}
	if info.Cluster > 0 {
		args = append(args, "-o", "cluster_size="+strconv.FormatInt(info.Cluster, 10))
	}
	if f.Backing != "" {
		name, err := backingName(f)
		if err != nil {
			return err
		}
		m := r.a.Manifest()
		args = append(args, "-u", "-b", name, "-F", m.Find(f.Backing).Format)
	}
	cmd := exec.CommandContext(ctx, "qemu-img", append(args, r.a.Path(f.Path), strconv.FormatInt(info.Size, 10))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img create %s: %w: %s", r.a.Path(f.Path), err, strings.TrimSpace(string(out)))
	}
	return nil
}

const (
	mirrorPoll = 200 * time.Millisecond
	// goneFor is how long a domain may go on without its mirrors: QEMU ends them before it ends itself.
	goneFor = 20 * time.Second
	// askAgain: a guest that is busy, or still boots, does not hear the first time.
	askAgain = 30 * time.Second
	// shutdownFor is how long a guest may take.
	shutdownFor = 10 * time.Minute
)

// untilEnd returns when the domain has ended with complete mirrors.
func (r *run) untilEnd(ctx context.Context) error {
	var ready, asked, gone time.Time
	for {
		now, err := r.mirrors(ctx)
		switch {
		case errors.Is(err, libvirtd.ErrNoDomain) && ready.IsZero():
			return fmt.Errorf("domain %s ended before its mirrors were complete; shut off as it is, --resume copies it", r.d.Name)
		case errors.Is(err, libvirtd.ErrNoDomain):
			return nil
		case err != nil:
			return err
		case now.missing != "":
			if gone.IsZero() {
				gone = time.Now()
			}
			if err := r.roomForMirrors(nil); err != nil || time.Since(gone) > goneFor {
				return errors.Join(fmt.Errorf("the mirror of %s of domain %s has ended; libvirt's log of the domain says why", now.missing, r.d.Name), err)
			}
		default:
			gone = time.Time{}
		}
		if now.extra != "" {
			return fmt.Errorf("disk %s was added to domain %s meanwhile: copy it again", now.extra, r.d.Name)
		}
		if now.ready && ready.IsZero() {
			ready = time.Now()
			r.o.Log.Info("the mirrors are complete; every write goes to both. The copy ends when the domain does", "domain", r.d.Name)
		}
		if r.o.Shutdown && !ready.IsZero() {
			if time.Since(ready) > shutdownFor {
				return fmt.Errorf("the guest of %s was asked to shut down, and still runs after %v", r.d.Name, shutdownFor)
			}
			if time.Since(asked) > askAgain {
				asked = time.Now()
				if err := r.o.Conn.Shutdown(ctx, r.d); err != nil && !errors.Is(err, libvirtd.ErrInvalid) && !errors.Is(err, libvirtd.ErrNoDomain) {
					return err
				}
			}
		}
		if err := sys.Sleep(ctx, mirrorPoll); err != nil {
			return err
		}
	}
}

// mirrorState is how the mirrors of a domain are.
type mirrorState struct {
	ready   bool
	missing string // a disk without its mirror
	extra   string // a disk that the guest writes to, and that was not there
}

// mirrors looks at them; the error is libvirtd.ErrNoDomain for a domain that does not run any more.
func (r *run) mirrors(ctx context.Context) (s mirrorState, err error) {
	d, err := r.o.Conn.Again(ctx, r.d)
	if err == nil && !d.Active {
		err = libvirtd.ErrNoDomain
	}
	if err != nil {
		return s, err
	}
	desc, err := lookAt(ctx, r.o.Conn, d)
	if err != nil {
		return s, err
	}
	want := make(map[string]string)
	for _, m := range r.intent.Mirrors {
		want[m.Target] = m.File
	}
	s.ready = true
	for i := range desc.Disks {
		d := &desc.Disks[i]
		switch file := want[d.Target.Dev]; {
		case file == "" && d.changes():
			s.extra = d.Target.Dev
		case file == "":
		case d.Mirror == nil || d.Mirror.file() != file:
			s.missing, s.ready = d.Target.Dev, false
		case d.Mirror.Ready != "yes":
			s.ready = false
		}
		delete(want, d.Target.Dev)
	}
	for target := range want {
		s.missing, s.ready = target, false
	}
	return s, nil
}

// ended compares the copies with what the guest has left, and copies the rest as it is now.
func (r *run) ended(ctx context.Context, files []*archive.File) error {
	at := time.Now()
	if err := r.claimAll(ctx); err != nil {
		return err
	}
	if err := r.a.Update(func(m *archive.Manifest) { m.Instant = at }); err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		if err := r.finished(ctx, f, true, r.compare(ctx, f)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.Target, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	// What the firmware and the TPM wrote last. Of a transient domain libvirt has removed it by now.
	for i := range r.inv.files {
		f := &r.inv.files[i]
		if f.Source != "" && !r.isMirrored(f) && exists(f.Source) && changed(f) {
			if err := reidentify(f); err != nil {
				return err
			}
		}
	}
	return r.copyFiles(ctx, nil)
}

// claimAll claims the disks of a domain that has ended, up to the end of the run.
func (r *run) claimAll(ctx context.Context) error {
	for i := range r.desc.Disks {
		d := &r.desc.Disks[i]
		if !d.writable() {
			continue
		}
		release, err := r.claimSoon(ctx, d)
		if err != nil {
			return err
		}
		r.claims = append(r.claims, release)
	}
	return nil
}

// claimSoon claims a disk of a domain whose QEMU may not have closed it yet.
func (r *run) claimSoon(ctx context.Context, d *disk) (release func(), err error) {
	for end := time.Now().Add(goneFor); ; {
		release, err = r.claim(d)
		if !errors.Is(err, source.ErrInUse) || time.Now().After(end) {
			return release, err
		}
		if err := sys.Sleep(ctx, mirrorPoll); err != nil {
			return nil, err
		}
	}
}

// errDiffers is for a mirror that ended before the guest's last write.
var errDiffers = errors.New("the mirror has not all that the guest wrote last; --resume copies it anew, now that the domain does not run")

// compare makes a mirror durable and this user's, and compares it with the disk as the guest saw that.
func (r *run) compare(ctx context.Context, f *archive.File) error {
	name := r.a.Path(f.Path)
	file, err := r.a.OpenRW(f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	// libvirt gave it to QEMU's user.
	if err := errors.Join(file.Chown(os.Getuid(), os.Getgid()), file.Chmod(0o600), file.Sync()); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "qemu-img", "compare", "-U", "-q", "-f", f.Format, "-F", f.Format, f.Source, name)
	var exit *exec.ExitError
	switch out, err := cmd.CombinedOutput(); {
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		return fmt.Errorf("%w: %w", imgcopy.ErrVerify, errDiffers)
	case err != nil:
		return fmt.Errorf("qemu-img compare %s %s: %w: %s", f.Source, name, err, strings.TrimSpace(string(out)))
	}
	sum, size, err := imgcopy.Digest(ctx, name, r.copy)
	if err != nil {
		return err
	}
	if err := reidentify(f); err != nil {
		return err
	}
	f.Size, f.BLAKE3 = size, sum.String()
	return nil
}

// endMirrors ends the mirrors of an intent that are still there. Their copies stay, for the next run to begin anew.
func (m *merger) endMirrors(ctx context.Context) error {
	for i := range m.in.Mirrors {
		if err := m.endMirror(ctx, &m.in.Mirrors[i]); err != nil {
			return fmt.Errorf("end the mirror of %s of domain %s: %w", m.in.Mirrors[i].Target, m.in.Domain, err)
		}
	}
	return nil
}

func (m *merger) endMirror(ctx context.Context, is *mirror) error {
	for end := time.Now().Add(time.Minute); ; {
		there, active, err := m.mirrored(ctx, is)
		if err == nil && active && !there { // it may be about to begin
			if err = m.waitForLibvirt(ctx); err == nil {
				there, active, err = m.mirrored(ctx, is)
			}
		}
		if err != nil || !there || !active {
			return err
		}
		err = m.conn.AbortBlockJob(ctx, m.d, is.Target)
		if time.Now().After(end) {
			return errors.Join(errors.New("it does not end"), err)
		}
		if err := sys.Sleep(ctx, mergePoll); err != nil {
			return err
		}
	}
}

// mirrored says whether a disk has the mirror.
func (m *merger) mirrored(ctx context.Context, is *mirror) (there, active bool, err error) {
	desc, active, err := m.describe(ctx)
	if err != nil || desc == nil {
		return false, false, err
	}
	for i := range desc.Disks {
		if d := &desc.Disks[i]; d.Target.Dev == is.Target && d.Mirror != nil && d.Mirror.file() == is.File {
			return true, active, nil
		}
	}
	return false, active, nil
}

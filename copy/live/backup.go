// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"imgward/copy/domain/libvirtd"
	"imgward/copy/internal/sys"
	"imgward/copy/source"
	"imgward/guard"
)

// Backup has libvirt's backup job (virDomainBackupBegin, push mode) write the disk as it is when the job begins, while
// the machine runs on. If a guest agent answers, the guest's file systems are frozen for that moment. What is written is
// the disk that the guest sees, in the format of the image: a qcow2 overlay comes out whole, without its backing file.
type Backup struct {
	Libvirt Libvirt
	Helper  []string // the command line of a process that calls Guard
	Log     *slog.Logger
}

const (
	freezeLimit = 30 * time.Second // a guest's services do not like to wait longer
	jobPoll     = 200 * time.Millisecond
)

// Snapshot implements source.Live. It returns when the job is done.
func (b Backup) Snapshot(ctx context.Context, i source.LiveImage) (*source.Snapshot, error) {
	use, err := theDisk(i.Uses)
	if err != nil {
		return nil, err
	}
	name := domain(use)
	d, err := find(ctx, b.Libvirt, name)
	if err != nil {
		return nil, err
	}
	format, err := b.diskFormat(ctx, d, use.Target)
	if err != nil {
		return nil, err
	}
	path := hidden(i.Path)
	if i.Target != "" {
		path = hidden(i.Target)
	}
	j := job{Backup: b, d: d, domain: name, disk: use.Target, format: format, path: path}
	remover, err := startRemover(b.Helper, path)
	if err != nil {
		return nil, err
	}
	f, err := j.result(ctx)
	if err != nil {
		err = errors.Join(err, removeIfThere(path))
		remover.Dismiss()
		return nil, err
	}
	return (&clone{f: f, path: path, own: true, remover: remover}).snapshot(), nil
}

// result is the file that the job has written.
func (j *job) result(ctx context.Context) (*os.File, error) {
	if err := j.run(ctx); err != nil {
		return nil, err
	}
	return os.OpenFile(j.path, os.O_RDWR, 0)
}

// theDisk finds the one disk of the one domain that is to be backed up.
func theDisk(uses []guard.Use) (guard.Use, error) {
	var disk guard.Use
	for _, u := range uses {
		if u.Role != guard.RoleDisk || u.Target == "" || domain(u) == "" {
			continue
		}
		if disk.Target != "" && domain(u) != domain(disk) {
			return guard.Use{}, fmt.Errorf("%s and %s share this disk; a backup of one would not stop the other from writing", disk.Domain, u.Domain)
		}
		disk = u
	}
	if disk.Target == "" {
		return guard.Use{}, errors.New("it is no disk of a libvirt domain, so there is no backup job for it")
	}
	return disk, nil
}

// diskFormat is the driver type of a domain's disk.
func (b Backup) diskFormat(ctx context.Context, domain libvirtd.Domain, target string) (string, error) {
	out, err := b.Libvirt.XML(ctx, domain, libvirtd.XML{})
	if err != nil {
		return "", err
	}
	var d struct {
		Disks []struct {
			Driver struct {
				Type string `xml:"type,attr"`
			} `xml:"driver"`
			Target struct {
				Dev string `xml:"dev,attr"`
			} `xml:"target"`
		} `xml:"devices>disk"`
	}
	if err := xml.Unmarshal([]byte(out), &d); err != nil {
		return "", fmt.Errorf("domain %s: %w", domain.Name, err)
	}
	for _, disk := range d.Disks {
		if disk.Target.Dev == target {
			return disk.Driver.Type, nil
		}
	}
	return "", fmt.Errorf("domain %s has no disk %s any more", domain.Name, target)
}

// job is one backup.
type job struct {
	Backup
	d                          libvirtd.Domain
	domain, disk, format, path string
}

func (j *job) run(ctx context.Context) error {
	text, err := j.request()
	if err != nil {
		return err
	}
	steps := []step{{Kind: remove, Args: []string{j.path}}, {Kind: backup, Domain: j.domain, XML: text}}
	w, err := j.frozen(ctx, func() (*guardian, error) { return startGuardian(j.Helper, script{Steps: steps}, j.Libvirt) })
	if err != nil {
		return err
	}
	if err := j.wait(ctx); err != nil {
		_, leaveErr := w.leave()
		return errors.Join(err, leaveErr)
	}
	return w.drop()
}

// frozen calls start between freezing and thawing the guest's file systems, if it has an agent.
func (j *job) frozen(ctx context.Context, start func() (*guardian, error)) (*guardian, error) {
	if !j.Libvirt.AgentAnswers(ctx, j.d) {
		j.Log.Info("no guest agent answers: the copy is what a power cut would leave", "domain", j.d.Name)
		return start()
	}
	frozen, err := startGuardian(j.Helper, script{Limit: freezeLimit, Steps: []step{{Kind: freeze, Domain: j.domain}}}, j.Libvirt)
	if err != nil {
		return nil, fmt.Errorf("freeze the guest's file systems: %w", err)
	}
	w, err := start()
	_, thawErr := frozen.leave()
	if thawErr != nil {
		err = errors.Join(err, fmt.Errorf("thaw the guest's file systems: %w", thawErr))
		if w != nil {
			_, leaveErr := w.leave()
			err = errors.Join(err, leaveErr)
		}
	}
	return w, err
}

// wait polls until the job is over.
func (j *job) wait(ctx context.Context) error {
	for {
		if err := sys.Sleep(ctx, jobPoll); err != nil {
			return err
		}
		state, err := j.Libvirt.Job(ctx, j.d, false)
		if err != nil {
			return err
		}
		if state != libvirtd.JobNone {
			continue
		}
		if state, err = j.Libvirt.Job(ctx, j.d, true); err != nil {
			return err
		}
		if state != libvirtd.JobCompleted {
			return fmt.Errorf("libvirt's backup job of %s ended as %q; its log says why", j.d.Name, state)
		}
		return nil
	}
}

// request is the job's XML (formatbackup.html).
func (j *job) request() (string, error) {
	type target struct {
		File string `xml:"file,attr"`
	}
	type disk struct {
		Name   string `xml:"name,attr"`
		Type   string `xml:"type,attr"`
		Backup string `xml:"backup,attr"`
		Driver struct {
			Type string `xml:"type,attr"`
		} `xml:"driver"`
		Target target `xml:"target"`
	}
	d := disk{Name: j.disk, Type: "file", Backup: "yes", Target: target{j.path}}
	d.Driver.Type = j.format
	b, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"domainbackup"`
		Mode    string   `xml:"mode,attr"`
		Disks   []disk   `xml:"disks>disk"`
	}{Mode: "push", Disks: []disk{d}})
	return string(b), err
}

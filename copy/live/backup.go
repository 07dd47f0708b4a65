package live

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	imgcopy "imgward/copy"
	"imgward/guard"
)

// Backup has libvirt's backup job (virDomainBackupBegin, push mode) write the disk as it is when the job begins, while
// the machine runs on. If a guest agent answers, the guest's file systems are frozen for that moment. What is written is
// the disk that the guest sees, in the format of the image: a qcow2 overlay comes out whole, without its backing file.
type Backup struct {
	Helper []string // the command line of a process that calls Guard
	Log    *slog.Logger
}

const (
	freezeLimit = 30 * time.Second // a guest's services do not like to wait longer
	jobPoll     = 200 * time.Millisecond
	agentWait   = 5 * time.Second
)

// Snapshot implements imgcopy.Live. It returns when the job is done.
func (b Backup) Snapshot(ctx context.Context, i imgcopy.LiveImage) (*imgcopy.Snapshot, error) {
	use, err := theDisk(i.Uses)
	if err != nil {
		return nil, err
	}
	name := domain(use)
	format, err := diskFormat(ctx, name, use.Target)
	if err != nil {
		return nil, err
	}
	path := hidden(i.Path)
	if i.Target != "" {
		path = hidden(i.Target)
	}
	j := job{Backup: b, domain: name, disk: use.Target, format: format, path: path}
	request, err := j.request()
	if err != nil {
		return nil, err
	}
	defer os.Remove(request)
	janitor, err := hire(b.Helper, path, request)
	if err != nil {
		return nil, err
	}
	f, err := j.result(ctx, request)
	if err != nil {
		err = errors.Join(err, removeIfThere(path))
		janitor.dismiss()
		return nil, err
	}
	return (&clone{f: f, path: path, adopt: true, janitor: janitor}).snapshot(), nil
}

// result is the file that the job has written.
func (j *job) result(ctx context.Context, request string) (*os.File, error) {
	if err := j.run(ctx, request); err != nil {
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
		return guard.Use{}, errors.New("it is not the disk of a domain of libvirt's, so there is no backup job for it")
	}
	return disk, nil
}

// diskFormat is the driver type of a domain's disk.
func diskFormat(ctx context.Context, name, target string) (string, error) {
	out, err := ask(ctx, "dumpxml", "--domain", name)
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
		return "", fmt.Errorf("domain %s: %w", name, err)
	}
	for _, disk := range d.Disks {
		if disk.Target.Dev == target {
			return disk.Driver.Type, nil
		}
	}
	return "", fmt.Errorf("domain %s has no disk %s any more", name, target)
}

// job is one backup.
type job struct {
	Backup
	domain, disk, format, path string
}

func (j *job) run(ctx context.Context, request string) error {
	steps := []step{
		{Enter: []string{"true"}, Leave: []string{"rm", "-f", "--", j.path}},
		{
			Enter: virsh("backup-begin", "--domain", j.domain, "--backupxml", request),
			Leave: virsh("domjobabort", "--domain", j.domain),
		},
	}
	w, err := j.frozen(ctx, func() (*ward, error) { return startWard(j.Helper, script{Steps: steps}) })
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
func (j *job) frozen(ctx context.Context, start func() (*ward, error)) (*ward, error) {
	short, cancel := context.WithTimeout(ctx, agentWait)
	defer cancel()
	if _, err := ask(short, "qemu-agent-command", "--domain", j.domain, "--timeout", "3", `{"execute":"guest-ping"}`); err != nil {
		j.Log.Info("no guest agent answers: the copy is what a power cut would leave", "domain", j.domain)
		return start()
	}
	freeze, err := startWard(j.Helper, script{Limit: freezeLimit, Steps: []step{{
		Enter: virsh("domfsfreeze", "--domain", j.domain),
		Leave: virsh("domfsthaw", "--domain", j.domain),
	}}})
	if err != nil {
		return nil, fmt.Errorf("freeze the guest's file systems: %w", err)
	}
	w, err := start()
	_, thawErr := freeze.leave()
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
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(jobPoll):
		}
		state, err := jobType(ctx, "--domain", j.domain)
		if err != nil {
			return err
		}
		if state != "None" {
			continue
		}
		if state, err = jobType(ctx, "--domain", j.domain, "--completed"); err != nil {
			return err
		}
		if state != "Completed" {
			return fmt.Errorf("libvirt's backup job of %s ended as %q; its log says why", j.domain, state)
		}
		return nil
	}
}

// jobType is the first line of what domjobinfo prints: "Job type:         Unbounded".
func jobType(ctx context.Context, args ...string) (string, error) {
	out, err := ask(ctx, append([]string{"domjobinfo"}, args...)...)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(out, "\n")
	_, state, _ := strings.Cut(line, ":")
	return strings.TrimSpace(state), nil
}

// request writes the job's XML (formatbackup.html) to a file, as virsh wants it.
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
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp("", "imgcp-backup-*.xml")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	return f.Name(), errors.Join(err, f.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

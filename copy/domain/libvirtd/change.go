// SPDX-License-Identifier: Apache-2.0

package libvirtd

import (
	"context"

	"github.com/digitalocean/go-libvirt"
)

// SnapshotDisks makes an atomic snapshot of disks that libvirt keeps no record of. With quiesce the guest's agent freezes its
// file systems for that moment.
func (c *Conn) SnapshotDisks(ctx context.Context, d Domain, xml string, quiesce bool) error {
	flags := libvirt.DomainSnapshotCreateDiskOnly | libvirt.DomainSnapshotCreateAtomic | libvirt.DomainSnapshotCreateNoMetadata
	if quiesce {
		flags |= libvirt.DomainSnapshotCreateQuiesce
	}
	return c.change(ctx, "make a snapshot of the disks of "+d.Name, func(l *libvirt.Libvirt) error {
		_, err := l.DomainSnapshotCreateXML(d.handle, xml, uint32(flags))
		return err
	})
}

// WaitForJobs returns when what a call that nobody waits for any more has begun is over: libvirt goes on with a snapshot whose caller
// was killed, and describes the domain as it was before until it is done. It changes nothing, but takes the domain's lock for
// changes (VIR_JOB_MODIFY): it removes a piece of metadata that nobody has.
func (c *Conn) WaitForJobs(ctx context.Context, d Domain) error {
	return c.ask(ctx, "wait for changes of domain "+d.Name, func(l *libvirt.Libvirt) error {
		return l.DomainSetMetadata(d.handle, int32(libvirt.DomainMetadataElement), nil, nil, libvirt.OptString{"urn:imgcp:none"},
			libvirt.DomainAffectLive)
	})
}

// AgentAnswers says whether the guest has an agent that can be asked to freeze its file systems.
func (c *Conn) AgentAnswers(ctx context.Context, d Domain) bool {
	const seconds = 3
	return c.ask(ctx, "ask the guest agent of "+d.Name, func(l *libvirt.Libvirt) error {
		_, err := l.QEMUDomainAgentCommand(d.handle, `{"execute":"guest-ping"}`, seconds, 0)
		return err
	}) == nil
}

// CommitActive begins to merge the top image of a disk, the overlay, into the one directly below: what is further down stays as
// it is. libvirt's defaults are the lowest image, which would take the user's own chain away, and whatever is on top: when
// somebody has just merged the overlay, that is the user's own image.
func (c *Conn) CommitActive(ctx context.Context, d Domain, target, overlay string) error {
	return c.change(ctx, "merge the overlay of "+target+" of "+d.Name, func(l *libvirt.Libvirt) error {
		return l.DomainBlockCommit(d.handle, target, nil, libvirt.OptString{overlay}, 0, libvirt.DomainBlockCommitActive|libvirt.DomainBlockCommitShallow)
	})
}

// BlockJob is what happens to a disk.
type BlockJob struct {
	Commit    bool  // a merge of the top image; otherwise something else
	Done, All int64 // bytes; equal when what is left is only what the guest writes
}

// BlockJob returns the job of a disk, or nil if it has none.
func (c *Conn) BlockJob(ctx context.Context, d Domain, target string) (job *BlockJob, err error) {
	err = c.ask(ctx, "look at the block job of "+target+" of "+d.Name, func(l *libvirt.Libvirt) error {
		found, kind, _, done, all, err := l.DomainGetBlockJobInfo(d.handle, target, 0)
		job = nil
		if err == nil && found == 1 {
			job = &BlockJob{libvirt.DomainBlockJobType(kind) == libvirt.DomainBlockJobTypeActiveCommit, int64(done), int64(all)}
		}
		return err
	})
	return job, err
}

// Pivot ends a merge: the disk is the lower image again. The error is ErrNotReady while that is not possible yet.
func (c *Conn) Pivot(ctx context.Context, d Domain, target string) error {
	return c.change(ctx, "end the merge of "+target+" of "+d.Name, func(l *libvirt.Libvirt) error {
		return l.DomainBlockJobAbort(d.handle, target, libvirt.DomainBlockJobAbortPivot)
	})
}

// AbortBlockJob ends a disk's job, with the disk as it was before.
func (c *Conn) AbortBlockJob(ctx context.Context, d Domain, target string) error {
	return c.change(ctx, "end the block job of "+target+" of "+d.Name, func(l *libvirt.Libvirt) error {
		return l.DomainBlockJobAbort(d.handle, target, 0)
	})
}

// DiskLimits are the limits that QEMU keeps a running domain's disk to, by libvirt's names ("write_bytes_sec"); 0: none.
func (c *Conn) DiskLimits(ctx context.Context, d Domain, target string) (limits map[string]uint64, err error) {
	err = c.ask(ctx, "look at the limits of "+target+" of "+d.Name, func(l *libvirt.Libvirt) error {
		disk := libvirt.OptString{target}
		_, n, err := l.DomainGetBlockIOTune(d.handle, disk, 0, uint32(libvirt.DomainAffectLive))
		if err != nil {
			return err
		}
		params, _, err := l.DomainGetBlockIOTune(d.handle, disk, n, uint32(libvirt.DomainAffectLive))
		limits = make(map[string]uint64)
		for _, p := range params {
			if v, ok := p.Value.I.(uint64); ok {
				limits[p.Field] = v
			}
		}
		return err
	})
	return limits, err
}

// LimitDisk sets one of them, until the domain ends. The others stay.
func (c *Conn) LimitDisk(ctx context.Context, d Domain, target, limit string, to uint64) error {
	params := []libvirt.TypedParam{{Field: limit, Value: *libvirt.NewTypedParamValueUllong(to)}}
	return c.change(ctx, "limit "+target+" of "+d.Name, func(l *libvirt.Libvirt) error {
		return l.DomainSetBlockIOTune(d.handle, target, params, uint32(libvirt.DomainAffectLive))
	})
}

// MirrorTo has all writes to a disk go to another image as well, until the job or the domain ends. xml is a <disk> element
// for the image, which exists. shallow: the image stands on the same backing file. bandwidth is in bytes a second, 0 for no limit.
func (c *Conn) MirrorTo(ctx context.Context, d Domain, target, xml string, shallow bool, bandwidth uint64) error {
	flags := libvirt.DomainBlockCopyReuseExt | libvirt.DomainBlockCopyTransientJob | libvirt.DomainBlockCopySynchronousWrites
	if shallow {
		flags |= libvirt.DomainBlockCopyShallow
	}
	var params []libvirt.TypedParam
	if bandwidth > 0 {
		params = append(params, libvirt.TypedParam{Field: "bandwidth", Value: *libvirt.NewTypedParamValueUllong(bandwidth)})
	}
	return c.change(ctx, "mirror "+target+" of "+d.Name, func(l *libvirt.Libvirt) error {
		return l.DomainBlockCopy(d.handle, target, xml, params, flags)
	})
}

// BeginBackup begins a backup job, as <domainbackup> says.
func (c *Conn) BeginBackup(ctx context.Context, d Domain, xml string) error {
	return c.change(ctx, "begin a backup of "+d.Name, func(l *libvirt.Libvirt) error {
		return l.DomainBackupBegin(d.handle, xml, nil, 0)
	})
}

// BackupXML describes the backup job of a domain, with what libvirt has chosen; an error if there is none.
func (c *Conn) BackupXML(ctx context.Context, d Domain) (text string, err error) {
	err = c.ask(ctx, "look at the backup of "+d.Name, func(l *libvirt.Libvirt) error {
		text, err = l.DomainBackupGetXMLDesc(d.handle, 0)
		return err
	})
	return text, err
}

// AbortJob ends the domain's own job: a backup.
func (c *Conn) AbortJob(ctx context.Context, d Domain) error {
	return c.change(ctx, "end the backup of "+d.Name, func(l *libvirt.Libvirt) error { return l.DomainAbortJob(d.handle) })
}

// Suspend stops a domain's CPUs.
func (c *Conn) Suspend(ctx context.Context, d Domain) error {
	return c.change(ctx, "suspend "+d.Name, func(l *libvirt.Libvirt) error { return l.DomainSuspend(d.handle) })
}

// Resume has them go on. The error is ErrInvalid if they do already.
func (c *Conn) Resume(ctx context.Context, d Domain) error {
	return c.change(ctx, "resume "+d.Name, func(l *libvirt.Libvirt) error { return l.DomainResume(d.handle) })
}

// FreezeFS has the guest's agent freeze all file systems.
func (c *Conn) FreezeFS(ctx context.Context, d Domain) error {
	return c.change(ctx, "freeze the guest's file systems of "+d.Name, func(l *libvirt.Libvirt) error {
		_, err := l.DomainFsfreeze(d.handle, nil, 0)
		return err
	})
}

// ThawFS has it thaw them.
func (c *Conn) ThawFS(ctx context.Context, d Domain) error {
	return c.change(ctx, "thaw the guest's file systems of "+d.Name, func(l *libvirt.Libvirt) error {
		_, err := l.DomainFsthaw(d.handle, nil, 0)
		return err
	})
}

// Job is what a domain's own job (a backup, a migration) is doing, as `virsh domjobinfo` calls it.
type Job string

// What Job may be, and others.
const (
	JobNone      Job = "None"
	JobCompleted Job = "Completed"
)

// Job asks for the job that is under way, or for the last one that ended.
func (c *Conn) Job(ctx context.Context, d Domain, completed bool) (job Job, err error) {
	var flags libvirt.DomainGetJobStatsFlags
	if completed {
		flags = libvirt.DomainJobStatsCompleted
	}
	err = c.ask(ctx, "look at the job of "+d.Name, func(l *libvirt.Libvirt) error {
		n, _, err := l.DomainGetJobStats(d.handle, flags)
		names := []Job{JobNone, "Bounded", "Unbounded", JobCompleted, "Failed", "Cancelled"}
		if job = "Unknown"; n >= 0 && int(n) < len(names) {
			job = names[n]
		}
		return err
	})
	return job, err
}

// Shutdown asks the guest to shut down.
func (c *Conn) Shutdown(ctx context.Context, d Domain) error {
	return c.change(ctx, "shut "+d.Name+" down", func(l *libvirt.Libvirt) error { return l.DomainShutdownFlags(d.handle, 0) })
}

// Define defines a domain, or changes its definition.
func (c *Conn) Define(ctx context.Context, xml string) (d Domain, err error) {
	err = c.change(ctx, "define a domain", func(l *libvirt.Libvirt) error {
		defined, err := l.DomainDefineXMLFlags(xml, libvirt.DomainDefineValidate)
		d = domain(defined)
		return err
	})
	return d, err
}

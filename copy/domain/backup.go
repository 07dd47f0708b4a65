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
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	imgcopy "imgward/copy"
	"imgward/copy/digest"
	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
	"imgward/copy/nbd"
	"imgward/guard"
)

// backup copies the disks of a running domain by libvirt's pull backup: QEMU shows them over NBD as they were when the job began,
// and keeps what the guest overwrites meanwhile in scratch files. Each disk becomes one raw image, without its backing chain.
func (r *run) backup(ctx context.Context) error {
	targets := r.written()
	for i := range r.desc.Disks {
		if d := &r.desc.Disks[i]; d.remote() {
			targets = append(targets, d.Target.Dev)
		}
	}
	if len(targets) == 0 {
		return r.copyFiles(ctx, nil)
	}
	if err := r.idle(ctx); err != nil {
		return err
	}
	dir, err := r.scratchDir()
	if err != nil {
		return err
	}
	r.intent.Method, r.intent.Scratch = archive.Backup, dir
	err = r.changing(ctx, func(*merger) error {
		if err := makeScratch(dir, r.d.Name); err != nil {
			return err
		}
		if err := r.begin(ctx, targets); err != nil {
			return err
		}
		return r.pull(ctx, targets)
	})
	if err != nil {
		return err
	}
	return r.copyFiles(ctx, nil)
}

// written are the disks that the guest writes to.
func (r *run) written() (targets []string) {
	for i := range r.desc.Disks {
		if d := &r.desc.Disks[i]; d.changes() {
			targets = append(targets, d.Target.Dev)
		}
	}
	return targets
}

// scratchDir chooses a directory for the socket and the scratch files.
func (r *run) scratchDir() (string, error) {
	var b [6]byte
	rand.Read(b[:])
	parent := r.o.Scratch
	if parent == "" {
		parent = "/var/lib/libvirt/qemu"
	}
	dir := filepath.Join(parent, "imgcp-"+hex.EncodeToString(b[:]))
	const most = 90 // of a socket's address, 108
	if len(dir) > most {
		return "", fmt.Errorf("%s is too long a name for the directory of a socket: choose another --scratch", dir)
	}
	return dir, nil
}

// makeScratch makes it, for the user that the domain's QEMU runs as.
func makeScratch(dir, domain string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join("/run/libvirt/qemu", domain+".pid"))
	if err != nil {
		return nil // a session's QEMU runs as we do
	}
	st, err := os.Stat("/proc/" + string(b))
	if err != nil {
		return err
	}
	owner := st.Sys().(*syscall.Stat_t)
	return os.Chown(dir, int(owner.Uid), int(owner.Gid))
}

const nbdSocket = "nbd.sock"

// begin begins the job (formatbackup.html), with the guest's file systems frozen for that moment if an agent answers.
func (r *run) begin(ctx context.Context, targets []string) error {
	type scratch struct {
		File string `xml:"file,attr"`
	}
	type backupDisk struct {
		Name    string   `xml:"name,attr"`
		Backup  string   `xml:"backup,attr"`
		Type    string   `xml:"type,attr,omitempty"`
		Scratch *scratch `xml:"scratch"`
	}
	x := struct {
		XMLName xml.Name `xml:"domainbackup"`
		Mode    string   `xml:"mode,attr"`
		Server  struct {
			Transport string `xml:"transport,attr"`
			Socket    string `xml:"socket,attr"`
		} `xml:"server"`
		Disks []backupDisk `xml:"disks>disk"`
	}{Mode: "pull"}
	x.Server.Transport, x.Server.Socket = "unix", filepath.Join(r.intent.Scratch, nbdSocket)
	for i := range r.desc.Disks {
		d := backupDisk{Name: r.desc.Disks[i].Target.Dev, Backup: "no"}
		for _, t := range targets {
			if t == d.Name {
				d.Backup, d.Type, d.Scratch = "yes", "file", &scratch{filepath.Join(r.intent.Scratch, t+".scratch.qcow2")}
			}
		}
		x.Disks = append(x.Disks, d)
	}
	b, err := xml.Marshal(x)
	if err != nil {
		return err
	}
	at := time.Now()
	if err := r.o.Conn.BeginBackup(ctx, r.d, string(b)); err != nil {
		return err
	}
	r.o.Log.Info("the backup has begun", "domain", r.d.Name, "took", time.Since(at).Round(time.Millisecond))
	return r.a.Update(func(m *archive.Manifest) { m.Instant = at })
}

// pull reads the disks, one after the other.
func (r *run) pull(ctx context.Context, targets []string) error {
	for i := range r.inv.files {
		f := &r.inv.files[i]
		if f.Kind != archive.Disk || !slices.Contains(targets, f.Target) {
			continue
		}
		r.report(f, false)
		if err := r.finished(ctx, f, r.copy.Verify, r.pullDisk(ctx, f)); err != nil {
			return err
		}
	}
	return nil
}

// readers is how many requests are in flight, each of a leaf of the digest, on a connection of its own.
const readers = 4

// pullDisk reads one disk into a sparse raw image.
func (r *run) pullDisk(ctx context.Context, f *archive.File) error {
	socket := filepath.Join(r.intent.Scratch, nbdSocket)
	first, err := nbd.Dial(ctx, socket, f.Target)
	if err != nil {
		return err
	}
	defer first.Close()
	out, err := r.a.Create(f.Path)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(first.Size()); err != nil {
		return err
	}
	f.Size = first.Size()
	tree := digest.New(digest.BLAKE3, f.Size)
	group, inner := errgroup.WithContext(ctx)
	leaves := make(chan int64)
	for range readers {
		group.Go(func() error {
			c, err := nbd.Dial(inner, socket, f.Target)
			if err != nil {
				return err
			}
			defer c.Close()
			b := make([]byte, digest.Leaf)
			for off := range leaves {
				p := b[:min(digest.Leaf, f.Size-off)]
				if err := r.limit(inner, len(p)); err != nil {
					return err
				}
				if err := c.Read(p, off); err != nil {
					return err
				}
				if _, err := out.WriteAt(p, off); err != nil {
					return err
				}
				tree.Data(off, p)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(leaves)
		return eachLeaf(first, func(off, n int64, zero bool) error {
			if zero {
				tree.Hole(off, n)
				return nil
			}
			select {
			case leaves <- off:
				return nil
			case <-inner.Done():
				return context.Cause(inner)
			}
		})
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	f.BLAKE3 = tree.Root().String()
	if !r.copy.Verify {
		return nil
	}
	sum, _, err := imgcopy.Digest(ctx, r.a.Path(f.Path), r.copy)
	if err == nil && sum.String() != f.BLAKE3 {
		err = fmt.Errorf("%w: %s is not what was read from the domain", imgcopy.ErrVerify, r.a.Path(f.Path))
	}
	return err
}

// eachLeaf calls do for every leaf, and says whether all of it is zeroes.
func eachLeaf(c *nbd.Client, do func(off, n int64, zero bool) error) error {
	var zeroTo, dataTo int64 // what is known from here on
	for off := int64(0); off < c.Size(); off += digest.Leaf {
		end := min(off+digest.Leaf, c.Size())
		zero := true
		for at := off; at < end && zero; {
			switch {
			case at < zeroTo:
				at = zeroTo
			case at < dataTo:
				zero = false
			default:
				is, n, err := c.Zeroes(at, c.Size()-at)
				if err != nil {
					return err
				}
				if is {
					zeroTo = at + n
				} else {
					dataTo = at + n
				}
			}
		}
		if err := do(off, end-off, zero); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) limit(ctx context.Context, n int) error {
	if r.copy.Limit == nil {
		return nil
	}
	return r.copy.Limit.WaitN(ctx, n)
}

// endBackup ends the backup job of an intent, if it is still there, and removes its directory.
func (m *merger) endBackup(ctx context.Context) error {
	if m.in.Scratch == "" {
		return nil
	}
	if err := m.abortBackup(ctx); err != nil {
		return fmt.Errorf("end the backup of domain %s: %w; to try again: imgcp domain --repair %s", m.in.Domain, err, guard.ShellWord(m.in.Domain))
	}
	return os.RemoveAll(m.in.Scratch)
}

// backupSocket is where the server of a backup job listens, in its XML.
type backupSocket struct {
	Server struct {
		Socket string `xml:"socket,attr"`
	} `xml:"server"`
}

func (m *merger) abortBackup(ctx context.Context) error {
	d, err := m.conn.Again(ctx, m.d)
	if errors.Is(err, libvirtd.ErrNoDomain) || err == nil && !d.Active {
		return nil // and its job with it
	}
	if err != nil {
		return err
	}
	var is backupSocket
	text, err := m.conn.BackupXML(ctx, d)
	if errors.Is(err, libvirtd.ErrNoBackup) { // it may be about to begin
		if err := m.waitForLibvirt(ctx); err != nil {
			return err
		}
		text, err = m.conn.BackupXML(ctx, d)
	}
	if errors.Is(err, libvirtd.ErrNoBackup) {
		return nil
	}
	if err == nil {
		err = xml.Unmarshal([]byte(text), &is)
	}
	if err != nil {
		return err
	}
	if filepath.Dir(is.Server.Socket) != m.in.Scratch {
		return nil // somebody else's: this run's has ended
	}
	if err := m.conn.AbortJob(ctx, d); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(mergePoll) { // it ends some time after
		if _, err := m.conn.BackupXML(ctx, d); err != nil {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("it does not end")
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// An external snapshot of a running domain has the guest's memory in a file of its own, which begins as a saved state does. It is
// in use while the snapshot's metadata names it: without it the snapshot is worth nothing.

// maxSnapshots bounds how many snapshots are read at once.
const maxSnapshots = 10_000

// memoryUses says whose snapshot the image is the memory of. Only a file that begins as one is looked for.
func (q *question) memoryUses() []Use {
	dir := q.g.config.SnapshotDir
	if q.Open == nil || !holdsAny(dir) {
		return nil
	}
	var found []Use
	answered := q.g.lookups.Do("snapshots of "+q.Image.String(), func() {
		if domain := savedDomain(q.Open); domain != "" {
			found = snapshotUses(q.g.config.Host, dir, domain, &q.Image)
		}
	})
	if !answered {
		return nil
	}
	return found
}

// holdsAny says whether there is a directory with anything in it: most hosts have no snapshots.
func holdsAny(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Nlink != 2 // each directory in it has a link; btrfs counts none, and has 1
}

// savedDomain is the name of the domain whose memory a file holds; empty: it is no such file.
func savedDomain(open func() (int, error)) string {
	fd, err := procfs.OpenRetry(open)
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), "image")
	defer f.Close()
	d, _, err := libvirt.ParseSaveImage(f, "", nil)
	if err != nil || filepath.Base(d.Name) != d.Name {
		return ""
	}
	return d.Name
}

// snapshotUses lists the memory files of a domain's snapshots, or those that are an image. domain may be a pattern.
func snapshotUses(host Host, dir, domain string, image *ID) (uses []Use) {
	files, _ := filepath.Glob(filepath.Join(dir, domain, "*.xml"))
	for _, file := range files[:min(len(files), maxSnapshots)] {
		s, err := readSnapshot(file)
		if err != nil || s.Memory == "" {
			continue
		}
		id, err := host.Lookup(s.Memory)
		if err == nil && (image == nil || *image == id) {
			uses = append(uses, Use{
				Domain: filepath.Base(filepath.Dir(file)), Target: s.Name, Role: RoleSnapshot, Writable: true,
				Evidence: EvidenceSaved, Path: s.Memory, State: file,
			})
		}
	}
	return uses
}

func readSnapshot(file string) (libvirt.Snapshot, error) {
	f, err := os.Open(file)
	if err != nil {
		return libvirt.Snapshot{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, libvirt.MaxFile+1))
	if err != nil {
		return libvirt.Snapshot{}, err
	}
	return libvirt.ParseSnapshot(text)
}

// addSnapshots adds the memory files of all snapshots.
func (g *Guard) addSnapshots(all map[ID][]Use) {
	if !holdsAny(g.config.SnapshotDir) {
		return
	}
	found := make(map[ID][]Use)
	if g.lookups.Do("all snapshots", func() {
		for _, u := range snapshotUses(g.config.Host, g.config.SnapshotDir, "*", nil) {
			if id, err := g.config.Host.Lookup(u.Path); err == nil {
				found[id] = append(found[id], u)
			}
		}
	}) {
		for id, uses := range found {
			all[id] = append(all[id], uses...)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package archive is what a copy of a domain looks like on the medium: one directory for each domain, which can be read,
// moved and restored without imgcp. docs/evacuation.md describes it for people.
//
//	DEST/NAME/archive.json     the manifest: what is here, where it came from, and what is still missing
//	DEST/NAME/xml/live.xml     `virsh dumpxml` of the running domain, as it was
//	DEST/NAME/xml/inactive.xml `virsh dumpxml --inactive`, the definition
//	DEST/NAME/disks/…          images with their backing chains; backing names in them are relative
//	DEST/NAME/nvram/… tpm/… save/… snapshots/… checkpoints/… networks/… pools/…
//
// An image that two domains use lies in both directories, as hard links to one file.
//
// The manifest is also the state of a copy under way: it is replaced as a whole whenever something has become durable, so
// that whatever kills imgcp, what the manifest calls copied is copied.
package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"imgward/copy/checkpoint"
)

// The names of fixed files, relative to the domain's directory.
const (
	Name        = "archive.json"
	LiveXML     = "xml/live.xml"
	InactiveXML = "xml/inactive.xml"
)

// Version of the manifest that this program reads and writes. Fields may be added without a new one.
const Version = 1

// Kind is what a file is.
type Kind string

// The kinds of files.
const (
	Disk        Kind = "disk"    // the top image of a disk
	Backing     Kind = "backing" // below one
	DataFile    Kind = "data"    // the external data file of a qcow2 image
	CDROM       Kind = "cdrom"
	Floppy      Kind = "floppy"
	NVRAM       Kind = "nvram"
	TPM         Kind = "tpm" // one file of the directory of swtpm's state
	ManagedSave Kind = "managed-save"
	Memory      Kind = "memory" // of an external snapshot
	Boot        Kind = "boot"   // kernel, initrd, device tree
	Snapshot    Kind = "snapshot"
	Checkpoint  Kind = "checkpoint"
	Network     Kind = "network"
	Pool        Kind = "pool"
	XML         Kind = "xml"
)

var kinds = map[Kind]bool{
	Disk: true, Backing: true, DataFile: true, CDROM: true, Floppy: true, NVRAM: true, TPM: true, ManagedSave: true, Memory: true,
	Boot: true, Snapshot: true, Checkpoint: true, Network: true, Pool: true, XML: true,
}

// State is how far a file is.
type State string

// The states of files.
const (
	Pending  State = "pending"
	Copied   State = "copied"   // whole and durable, with its digest
	Verified State = "verified" // and read back from the medium, equal to what was read from the source
	Failed   State = "failed"
)

// Whole says that the file is there, to its last byte.
func (s State) Whole() bool { return s == Copied || s == Verified }

// Method is how the disks of one domain became one instant.
type Method string

// The methods.
const (
	Offline Method = "offline" // the domain was shut off
	Freeze  Method = "freeze"
	Backup  Method = "backup"
	Mirror  Method = "mirror"
)

// Manifest describes the copy of one domain.
type Manifest struct {
	Type      string    `json:"type"` // "imgcp-domain"
	Version   int       `json:"version"`
	Domain    string    `json:"domain"`
	UUID      string    `json:"uuid"`
	Host      string    `json:"host"`                // it was copied from
	Transient bool      `json:"transient,omitempty"` // it had no definition: the live XML is all there is
	Running   bool      `json:"running,omitempty"`   // when it was copied
	Method    Method    `json:"method"`
	Flat      bool      `json:"flat,omitempty"` // each disk is one image, without its backing chain
	Quiesced  bool      `json:"quiesced,omitempty"`
	Begun     time.Time `json:"begun"`
	Instant   time.Time `json:"instant,omitzero"`  // of which the disks are
	Finished  time.Time `json:"finished,omitzero"` // zero while something is missing
	Error     string    `json:"error,omitempty"`   // why the domain as a whole could not be copied
	Files     []File    `json:"files"`
	// Omitted is what the domain has and the copy has not.
	Omitted []Omission `json:"omitted,omitempty"`
}

// File is one file of the copy.
type File struct {
	Path   string `json:"path"` // relative to the domain's directory, with slashes
	Kind   Kind   `json:"kind"`
	Target string `json:"target,omitempty"` // "vda"; of files below a disk: the first disk that stands on them
	Name   string `json:"name,omitempty"`   // of the snapshot, checkpoint, network or pool
	// Current: the domain is at this snapshot.
	Current bool   `json:"current,omitempty"`
	Format  string `json:"format,omitempty"` // "raw", "qcow2", … of images
	// Backing is the Path of the image directly below this one; Data that of its external data file.
	Backing string `json:"backing,omitempty"`
	Data    string `json:"data,omitempty"`
	// Source is where it was: a path on that host, as libvirt or the image above it names it. Empty for what libvirt told.
	Source   string               `json:"source,omitempty"`
	Identity *checkpoint.Identity `json:"identity,omitempty"` // of the source when it was copied
	Size     int64                `json:"size"`               // of the copy, in bytes; of a pending file what is expected
	BLAKE3   string               `json:"blake3,omitempty"`   // the root of the tree of hashes (package digest), in hexadecimal
	State    State                `json:"state"`
	Error    string               `json:"error,omitempty"`
}

// Omission is something that was not copied, and why.
type Omission struct {
	Target string `json:"target,omitempty"`
	Source string `json:"source,omitempty"`
	Why    string `json:"why"`
}

// Find returns the file with this path, or nil.
func (m *Manifest) Find(name string) *File {
	for i := range m.Files {
		if m.Files[i].Path == name {
			return &m.Files[i]
		}
	}
	return nil
}

// Whole says that every file is there.
func (m *Manifest) Whole() bool {
	for _, f := range m.Files {
		if !f.State.Whole() {
			return false
		}
	}
	return m.Error == "" && !m.Finished.IsZero()
}

// maxFiles bounds a manifest; a domain with 200 disks on chains of 200 images has 40,000.
const maxFiles = 1 << 16

// Validate refuses what cannot be the manifest of a copy: paths that leave its directory or meet, backing files that it does
// not have or that stand on themselves. Whoever follows a valid one through Archive.Open reads nothing outside.
func (m *Manifest) Validate() error {
	if m.Domain == "" || len(m.Files) > maxFiles {
		return fmt.Errorf("a copy of %q cannot have %d files", m.Domain, len(m.Files))
	}
	byPath := make(map[string]*File, len(m.Files))
	for i := range m.Files {
		f := &m.Files[i]
		if err := f.validate(); err != nil {
			return err
		}
		if byPath[f.Path] != nil {
			return fmt.Errorf("%q is listed twice", f.Path)
		}
		byPath[f.Path] = f
	}
	for _, f := range m.Files {
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if byPath[dir] != nil {
				return fmt.Errorf("%q is a file and a directory", dir)
			}
		}
		if f.Data != "" && byPath[f.Data] == nil {
			return fmt.Errorf("%q: its data file %q is not here", f.Path, f.Data)
		}
	}
	return standing(byPath)
}

// standing checks that every chain ends.
func standing(byPath map[string]*File) error {
	ends := make(map[string]bool, len(byPath)) // its chain is known to end
	for start := range byPath {
		above := map[string]bool{}
		for at := start; at != "" && !ends[at]; at = byPath[at].Backing {
			if byPath[at] == nil {
				return fmt.Errorf("the backing file %q is not here", at)
			}
			if above[at] {
				return fmt.Errorf("the backing chain of %q is a loop", at)
			}
			above[at] = true
		}
		for at := range above {
			ends[at] = true
		}
	}
	return nil
}

func (f *File) validate() error {
	switch {
	case !ValidPath(f.Path):
		return fmt.Errorf("%q is no name of a file of the copy", f.Path)
	case !kinds[f.Kind]:
		return fmt.Errorf("%q is of a kind that is not known to this imgcp: %q", f.Path, f.Kind)
	case f.Size < 0:
		return fmt.Errorf("%q cannot have %d bytes", f.Path, f.Size)
	case f.State != Pending && f.State != Copied && f.State != Verified && f.State != Failed:
		return fmt.Errorf("%q is in a state that is not known to this imgcp: %q", f.Path, f.State)
	case f.State.Whole() && len(f.BLAKE3) != 64:
		return fmt.Errorf("%q has no digest", f.Path)
	}
	return nil
}

// ValidPath says whether a file of the copy may have this name: relative, clean, without a control character, and not the
// manifest's own. Whether a symbolic link leads out is seen when it is opened.
func ValidPath(name string) bool {
	return fs.ValidPath(name) && name != "." && name != Name && name != tempName && name != lockName &&
		strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) < 0
}

// Errors of Open and Create.
var (
	ErrVersion = errors.New("written by another version of imgcp")
	ErrNone    = errors.New("there is no copy of a domain here")
	ErrBusy    = errors.New("another imgcp is writing to it")
)

// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"imgward/copy/domain/archive"
	"imgward/copy/internal/sys"
)

// intent is what a run is about to do to a domain or has done, on the medium before it is done: from it --repair knows what
// to undo, after a kill or a power cut. There is one file for each domain, named after its UUID, for as long as there is
// something to undo.
type intent struct {
	Type     string         `json:"type"` // "imgcp-domain-intent"
	Version  int            `json:"version"`
	Domain   string         `json:"domain"`
	UUID     string         `json:"uuid"`
	URI      string         `json:"uri"` // of its libvirt
	Method   archive.Method `json:"method"`
	Begun    time.Time      `json:"begun"`
	Overlays []overlay      `json:"overlays,omitempty"` // freeze
	Scratch  string         `json:"scratch,omitempty"`  // backup: the directory of its socket and scratch files
	Mirrors  []mirror       `json:"mirrors,omitempty"`
	Throttle uint64         `json:"throttle,omitempty"` // of the guest's writes to a disk that is merged, bytes a second

	path string
	lock *os.File
}

// overlay is where the guest's writes to one disk go while the image below is copied.
type overlay struct {
	Target string `json:"target"`
	Image  string `json:"image"`  // the disk's own, as the domain's XML names it
	Format string `json:"format"` // of the image
	File   string `json:"file"`   // the overlay
	Phase  phase  `json:"phase"`
	// Throttle is set while the disk has a limit that is not its own.
	Throttle *throttle `json:"throttle,omitempty"`
}

// phase says which of the two images of a disk has the guest's last writes.
type phase string

const (
	inOverlay phase = "overlay"  // the overlay, if there is one
	pivoting  phase = "pivoting" // both have been equal; one of them is in use
	back      phase = "back"     // the image: the overlay is waste
)

const intentVersion = 1

// ErrRepairing says that somebody else is at work on the domain.
var ErrRepairing = errors.New("another imgcp is at work on this domain")

// newIntent takes the domain for this run. It is not on the medium before the first save.
func newIntent(dir, uuid string) (*intent, error) {
	i := &intent{path: filepath.Join(dir, "domains", uuid+".json")}
	if err := os.MkdirAll(filepath.Dir(i.path), 0o700); err != nil {
		return nil, err
	}
	return i, i.take()
}

// take locks the domain's intent. The lock is a file of its own: the intent is replaced whenever it changes.
func (i *intent) take() (err error) {
	if i.lock, err = os.OpenFile(i.path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return err
	}
	if err = unix.Flock(int(i.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		i.lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrRepairing
		}
		return fmt.Errorf("%s: %w", i.path, err)
	}
	return nil
}

// loadIntent finds what an earlier run left undone, and takes the domain; nil: nothing is.
func loadIntent(dir, uuid string) (*intent, error) {
	i, err := newIntent(dir, uuid)
	if err != nil {
		return nil, err
	}
	switch err := i.read(); {
	case errors.Is(err, fs.ErrNotExist):
		i.release()
		return nil, nil
	case err != nil:
		i.release()
		return nil, err
	}
	return i, nil
}

// read reads it from the medium; the error is fs.ErrNotExist if nothing is to be undone.
func (i *intent) read() error {
	f, err := os.OpenFile(i.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const most = 1 << 20
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err == nil {
		err = json.Unmarshal(b, i)
	}
	if err == nil && (i.Type != intentType || i.Version != intentVersion) {
		err = archive.ErrVersion
	}
	if err != nil {
		return fmt.Errorf("%s: %w", i.path, err)
	}
	return nil
}

const intentType = "imgcp-domain-intent"

// save makes the intent durable.
func (i *intent) save() error {
	i.Type, i.Version = intentType, intentVersion
	b, err := json.MarshalIndent(i, "", " ")
	if err != nil {
		return err
	}
	return sys.ReplaceFile(i.path, append(b, '\n'))
}

// done forgets the intent, for nothing is left to undo, and lets others at the domain.
func (i *intent) done() error {
	err := os.Remove(i.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	i.release()
	return err
}

// release lets others at the domain; the intent stays on the medium.
func (i *intent) release() { i.lock.Close() }

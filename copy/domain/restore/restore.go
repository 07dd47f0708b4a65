// SPDX-License-Identifier: Apache-2.0

// Package restore brings the copy of a domain (package archive) back: its files to their places, its definition, snapshots and
// checkpoints to libvirt.
//
// Nothing is overwritten, nothing is started, and nothing of a restored domain leads to the original: every backing name in an
// image and every image in the XML must be of the copy, before anything is written.
package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	imgcopy "imgward/copy"
	"imgward/copy/checkpoint"
	"imgward/copy/dest"
	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
)

// Libvirt is what is asked of the libvirt that gets the domain (libvirtd.Conn).
type Libvirt interface {
	// Domain and Again find a domain by name and by UUID; libvirtd.ErrNoDomain if there is none.
	Domain(ctx context.Context, name string) (libvirtd.Domain, error)
	Again(ctx context.Context, d libvirtd.Domain) (libvirtd.Domain, error)
	Machines(ctx context.Context, arch string) ([]string, error)
	NetworkXML(ctx context.Context, name string) (string, error)

	Define(ctx context.Context, xml string) (libvirtd.Domain, error)
	RedefineSnapshot(ctx context.Context, d libvirtd.Domain, s libvirtd.Metadata) error
	RedefineCheckpoint(ctx context.Context, d libvirtd.Domain, xml string) error
	RewriteSaved(ctx context.Context, file string, change func(xml string) (string, error)) error
	Undefine(ctx context.Context, d libvirtd.Domain) error
	Start(ctx context.Context, d libvirtd.Domain) error
}

// Options are how a domain is restored.
type Options struct {
	Conn Libvirt
	As   string // another name, with another UUID and other MAC addresses; "": all as they were
	// Maps put one thing in the place of another: directories, or what is named before a colon (network, bridge, machine).
	Maps []Map
	// Without are disks ("vdb") to be left out, or "snapshots", "checkpoints".
	Without []string
	Start   bool // it, when all is there
	Copy    imgcopy.Options
	Log     *slog.Logger
	// File is told of each file that is put in its place, before and after; nil for nobody.
	File func(f archive.File, to string, done bool)
}

// remote is the kind of a Map that puts a file in the place of a network disk.
const remote = "remote"

// Map puts New in the place of Old.
type Map struct{ Kind, Old, New string }

// ParseMap reads "/old/dir=/new/dir", "network:old=new", or of a network disk "rbd:pool/image=/new/file".
func ParseMap(s string) (Map, error) {
	old, now, ok := strings.Cut(s, "=")
	if !ok || old == "" || now == "" {
		return Map{}, fmt.Errorf("--map=%s: OLD=NEW, of two directories or as network:OLD=NEW, bridge:OLD=NEW, machine:OLD=NEW", s)
	}
	for _, kind := range []string{"network", "bridge", "machine"} {
		if name, ok := strings.CutPrefix(old, kind+":"); ok {
			return Map{kind, name, strings.TrimPrefix(now, kind+":")}, nil
		}
	}
	if strings.Contains(old, ":") && !filepath.IsAbs(old) && filepath.IsAbs(now) {
		return Map{remote, old, filepath.Clean(now)}, nil
	}
	if !filepath.IsAbs(old) || !filepath.IsAbs(now) {
		return Map{}, fmt.Errorf("--map=%s: directories are named by their absolute paths", s)
	}
	return Map{"", filepath.Clean(old), filepath.Clean(now)}, nil
}

// Plan is what is to be done.
type Plan struct {
	Domain      string              `json:"domain"`
	UUID        string              `json:"uuid"`
	Files       []Placed            `json:"files"`
	XML         string              `json:"xml"`
	Snapshots   []libvirtd.Metadata `json:"snapshots,omitempty"`
	Checkpoints []libvirtd.Metadata `json:"checkpoints,omitempty"`
	// Notes are what whoever starts the domain must know.
	Notes []string `json:"notes,omitempty"`

	o        Options
	a        *archive.Archive
	m        archive.Manifest
	arch     string
	problems []error
	placed   map[string]*Placed // by the file's path in the copy
	as       renamed
}

// Placed is a file and where it goes.
type Placed struct {
	File archive.File `json:"file"`
	To   string       `json:"to"`
	// There says that a file that nobody writes to (a backing file, a CD) is there already, with the same contents.
	There bool `json:"there,omitempty"`

	header func(io.ReaderAt) ([]byte, error)
}

// ErrOutside says that something in the copy leads out of it.
var ErrOutside = errors.New("leads out of the copy")

// New looks at the copy in the directory dir and at where it is to go, and writes nothing. The error says everything that is
// in the way; it is dest.ErrExists if something is there already, and ErrOutside if the copy is not all that is needed.
func New(ctx context.Context, dir string, o Options) (*Plan, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p, err := open(dir, o)
	if err != nil {
		return nil, err
	}
	if err = p.whole(); err == nil {
		err = p.look(ctx, p.chains)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func open(dir string, o Options) (*Plan, error) {
	a, err := archive.Open(dir)
	if err != nil {
		return nil, err
	}
	return &Plan{o: o, a: a, m: a.Manifest(), placed: make(map[string]*Placed)}, nil
}

// Look looks at a copy that is still to be made as New does, as far as that is known: whether the domain could be restored.
func Look(ctx context.Context, dir string, o Options) error {
	p, err := open(dir, o)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.look(ctx, func(context.Context) error { return nil })
}

// Close gives up the copy.
func (p *Plan) Close() error { return p.a.Close() }

func (p *Plan) whole() error {
	if !p.m.Whole() {
		return fmt.Errorf("%s is not whole: imgcp report says what is missing, imgcp domain --resume goes on with it", p.a.Dir)
	}
	return nil
}

// look collects all that is in the way.
func (p *Plan) look(ctx context.Context, chains func(context.Context) error) error {
	if err := p.rename(); err != nil {
		return err
	}
	if err := p.unknown(ctx); err != nil {
		return err
	}
	p.place()
	if err := chains(ctx); err != nil {
		return err
	}
	if err := p.describe(ctx); err != nil {
		return err
	}
	for i := range p.Files {
		if err := p.free(ctx, &p.Files[i]); err != nil {
			return err
		}
	}
	for _, o := range p.m.Omitted {
		p.note("the copy has not: %s%s", strings.TrimSpace(o.Target+" "+o.Source), ": "+o.Why)
	}
	return errors.Join(p.problems...)
}

func (p *Plan) problem(err error)            { p.problems = append(p.problems, err) }
func (p *Plan) note(format string, a ...any) { p.Notes = append(p.Notes, fmt.Sprintf(format, a...)) }
func (p *Plan) without(name string) bool     { return slices.Contains(p.o.Without, name) }
func (p *Plan) to(path string) (string, bool) { // the place of what was at path
	for _, f := range p.Files {
		if f.File.Source == path {
			return f.To, true
		}
	}
	return "", false
}

// unknown makes sure that libvirt has neither the name nor the UUID.
func (p *Plan) unknown(ctx context.Context) error {
	_, err := p.o.Conn.Domain(ctx, p.Domain)
	if err == nil {
		return dest.Conflict("libvirt has a domain " + p.Domain + " already; --as gives the copy another name")
	}
	if !errors.Is(err, libvirtd.ErrNoDomain) {
		return err
	}
	d, err := libvirtd.Gone(p.Domain, p.UUID)
	if err != nil {
		return err
	}
	other, err := p.o.Conn.Again(ctx, d)
	if err == nil {
		return dest.Conflict("libvirt has a domain with this UUID already, " + other.Name + "; --as gives the copy another one")
	}
	if !errors.Is(err, libvirtd.ErrNoDomain) {
		return err
	}
	return nil
}

// Run puts everything in its place and defines the domain. What an interrupted run has placed is found by the next one.
func (p *Plan) Run(ctx context.Context) error {
	for i := range p.Files {
		f := &p.Files[i]
		if f.There || f.File.Kind == archive.ManagedSave {
			continue
		}
		if err := p.placeFile(ctx, f); err != nil {
			return err
		}
	}
	if err := p.define(ctx); err != nil {
		return err
	}
	for _, f := range p.Files {
		if err := checkpoint.ForgetWhole(f.To); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) placeFile(ctx context.Context, f *Placed) error {
	if p.o.File != nil {
		p.o.File(f.File, f.To, false)
	}
	if err := imgcopy.Cause(ctx, p.put(ctx, f)); err != nil {
		return fmt.Errorf("%s: %w", f.To, err)
	}
	if p.o.File != nil {
		p.o.File(f.File, f.To, true)
	}
	return nil
}

// define has libvirt know the domain with its snapshots and checkpoints, or nothing of it.
func (p *Plan) define(ctx context.Context) error {
	d, err := p.o.Conn.Define(ctx, p.XML)
	if err != nil {
		return err
	}
	if err = p.metadata(ctx, d); err == nil {
		err = p.wake(ctx)
	}
	if err != nil {
		ctx := context.WithoutCancel(ctx)
		return errors.Join(err, p.o.Conn.Undefine(ctx, d))
	}
	if p.o.Start {
		if err := p.o.Conn.Start(ctx, d); err != nil {
			return fmt.Errorf("domain %s is defined, with all its files, and could not be started: %w", p.Domain, err)
		}
	}
	return nil
}

// wake puts the state of a saved domain where libvirt looks for it, and has it name the new places. Where that cannot be, the
// domain boots. It comes last: libvirt undefines no domain that has one.
func (p *Plan) wake(ctx context.Context) error {
	for i := range p.Files {
		f := &p.Files[i]
		if f.File.Kind != archive.ManagedSave {
			continue
		}
		if f.There { // of an interrupted run, which may have changed it already
			if err := os.Remove(f.To); err != nil {
				return err
			}
		}
		if err := p.placeFile(ctx, f); err != nil {
			return err
		}
		err := p.o.Conn.RewriteSaved(ctx, f.To, func(xml string) (string, error) {
			text, err := p.rewrite(ctx, xml, true)
			return text, errors.Join(append(p.problems, err)...)
		})
		if err == nil && !p.o.Start {
			p.note("the domain was saved, and goes on from there when it is started (virsh start --force-boot boots it). Until then libvirt does not "+
				"undefine it, and what removes such a state knows of it only when libvirtd was restarted, or by rm %s", f.To)
		}
		if err == nil {
			continue
		}
		p.note("the domain was saved, and its state cannot be brought here (%v). Started, it boots; to go on where it was saved: virsh restore %s "+
			"--xml DEFINITION (imgcp restore --print)", err, p.a.Path(f.File.Path))
		if err := os.Remove(f.To); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) metadata(ctx context.Context, d libvirtd.Domain) error {
	for _, s := range p.Snapshots {
		if err := p.o.Conn.RedefineSnapshot(ctx, d, s); err != nil {
			return fmt.Errorf("%s: %w; --without=snapshots leaves them out", s.Name, err)
		}
	}
	for _, c := range p.Checkpoints {
		if err := p.o.Conn.RedefineCheckpoint(ctx, d, c.XML); err != nil {
			return fmt.Errorf("%s: %w; --without=checkpoints leaves them out", c.Name, err)
		}
	}
	return nil
}

// read reads a small file of the copy.
func (p *Plan) read(name string) (string, error) {
	f, err := p.a.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const most = 64 << 20
	b, err := readMost(f, most)
	return string(b), err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

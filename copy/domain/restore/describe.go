// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"encoding/xml"
	"fmt"
	"os"
	"slices"
	"strings"

	"imgward/copy/domain/archive"
	"imgward/copy/domain/libvirtd"
	"imgward/copy/domain/xmledit"
)

// describe makes the XML of the domain, its snapshots and its checkpoints: as they were, with the new places in.
func (p *Plan) describe(ctx context.Context) error {
	name := archive.InactiveXML
	if p.m.Find(name) == nil {
		name = archive.LiveXML // it had no definition
	}
	text, err := p.read(name)
	if err != nil {
		return err
	}
	var d struct {
		Type struct {
			Arch string `xml:"arch,attr"`
		} `xml:"os>type"`
	}
	if err := xml.Unmarshal([]byte(text), &d); err != nil {
		return fmt.Errorf("read the domain's XML: %w", err)
	}
	p.arch = d.Type.Arch
	if p.XML, err = p.rewrite(ctx, text, true); err != nil {
		return err
	}
	for _, f := range p.m.Files {
		var to *[]libvirtd.Metadata
		switch {
		case f.Kind == archive.Snapshot && !p.without("snapshots"):
			to = &p.Snapshots
		case f.Kind == archive.Checkpoint && !p.without("checkpoints"):
			to = &p.Checkpoints
		default:
			continue
		}
		text, err := p.read(f.Path)
		if err != nil {
			return err
		}
		// What a domain was then need not be there any more: libvirt looks at it when somebody reverts.
		if text, err = p.rewrite(ctx, text, false); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		*to = append(*to, libvirtd.Metadata{Name: f.Name, XML: text, Current: f.Current})
	}
	return nil
}

// diskXML is what must be known of a <disk> before its text is changed. In a snapshot it has a name, no target.
type diskXML struct {
	Name   string    `xml:"name,attr"`
	Source sourceXML `xml:"source"`
	Target struct {
		Dev string `xml:"dev,attr"`
	} `xml:"target"`
}

type sourceXML struct {
	File     string `xml:"file,attr"`
	Dev      string `xml:"dev,attr"`
	Dir      string `xml:"dir,attr"`
	Pool     string `xml:"pool,attr"`
	Volume   string `xml:"volume,attr"`
	Protocol string `xml:"protocol,attr"`
	Name     string `xml:"name,attr"`
	Type     string `xml:"type,attr"`
}

func (s *sourceXML) path() string {
	if s.File != "" {
		return s.File
	}
	return s.Dev
}

// rewriter changes one text.
type rewriter struct {
	*Plan
	ctx     context.Context
	current bool // it is the domain itself, not what it was once
	disk    diskXML
	placed  *Placed // of the disk under way
}

func (p *Plan) rewrite(ctx context.Context, text string, current bool) (string, error) {
	r := &rewriter{Plan: p, ctx: ctx, current: current}
	e := xmledit.Editor{Start: r.start, Text: r.text}
	return e.Edit(text)
}

func (r *rewriter) start(path []string, t *xml.StartElement, at string) (xmledit.What, error) {
	switch {
	case xmledit.Ends(path, "devices", "disk"), xmledit.Ends(path, "disks", "disk"):
		return r.startDisk(t, at)
	case slices.Contains(path, "disk") && xmledit.Ends(path, "mirror"):
		return xmledit.Drop, nil // a job that the copy has not
	case slices.Contains(path, "disk"):
		return r.inDisk(path, t)
	case xmledit.Ends(path, "domainsnapshot", "memory") && xmledit.Attr(t, "file") != "":
		return r.replace(t, "file", "the memory of the snapshot")
	case xmledit.Ends(path, "os", "nvram", "source") && xmledit.Attr(t, "file") != "":
		xmledit.Set(t, "file", "file", r.as.path(r.path(xmledit.Attr(t, "file"))))
		return xmledit.Changed, nil
	case xmledit.Ends(path, "os", "type"):
		return r.machine(t)
	case xmledit.Ends(path, "interface", "mac") && xmledit.Attr(t, "address") != "":
		xmledit.Set(t, "address", "address", r.as.address(xmledit.Attr(t, "address")))
		return xmledit.Changed, nil
	case xmledit.Ends(path, "interface", "source"):
		return r.network(t)
	case xmledit.Ends(path, "tpm", "backend", "source") && xmledit.Attr(t, "path") != "":
		xmledit.Set(t, "path", "path", r.as.path(r.Plan.path(xmledit.Attr(t, "path"))))
		return xmledit.Changed, nil
	case xmledit.Ends(path, "source") && strings.HasPrefix(xmledit.Attr(t, "path"), "/"): // of a console, a channel
		xmledit.Set(t, "path", "path", r.Plan.path(xmledit.Attr(t, "path")))
		return xmledit.Changed, nil
	}
	return xmledit.Keep, nil
}

// startDisk finds out where the image of a disk goes.
func (r *rewriter) startDisk(t *xml.StartElement, at string) (xmledit.What, error) {
	r.disk, r.placed = diskXML{}, nil
	if err := xml.NewDecoder(strings.NewReader(at)).Decode(&r.disk); err != nil {
		return xmledit.Keep, fmt.Errorf("read a disk's XML: %w", err)
	}
	target := r.disk.Target.Dev
	if target == "" {
		target = r.disk.Name
	}
	s := &r.disk.Source
	switch {
	case r.without(target):
		return xmledit.Drop, nil
	case *s == sourceXML{}: // an empty drive, or a checkpoint's
		return xmledit.Keep, nil
	}
	for i := range r.Files {
		f := &r.Files[i]
		own := f.File.Kind == archive.Disk || f.File.Kind == archive.CDROM || f.File.Kind == archive.Floppy
		if s.path() != "" && f.File.Source == s.path() && isImage(&f.File) || s.Volume != "" && own && f.File.Target == target ||
			s.Protocol != "" && own && f.File.Source == s.Protocol+":"+s.Name {
			r.placed = f
			break
		}
	}
	if r.placed == nil {
		return xmledit.Keep, r.missing(target, s)
	}
	xmledit.Set(t, "type", "type", "file")
	return xmledit.Changed, nil
}

// missing: a disk whose image the copy has not would be the original.
func (r *rewriter) missing(target string, s *sourceXML) error {
	what := s.path()
	for _, name := range []string{s.Dir, s.Pool + "/" + s.Volume, s.Protocol, s.Type} {
		if what == "" && name != "/" {
			what = name
		}
	}
	hint := "--without=" + target
	if !r.current {
		hint = "--without=snapshots"
	}
	r.problem(fmt.Errorf("%s (%s) is not in the copy: the domain %w; %s leaves it out", target, what, ErrOutside, hint))
	return nil
}

// inDisk changes what is in a <disk>.
func (r *rewriter) inDisk(path []string, t *xml.StartElement) (xmledit.What, error) {
	top := xmledit.Ends(path, "disk", "source") || xmledit.Ends(path, "disk", "driver")
	switch {
	case r.placed == nil:
		return xmledit.Keep, nil
	case xmledit.Ends(path, "backingStore") && r.m.Flat:
		return xmledit.Drop, nil // it is one image
	case xmledit.Ends(path, "disk", "driver") && r.placed.File.Format != "" && xmledit.Attr(t, "type") != "":
		xmledit.Set(t, "type", "type", r.placed.File.Format)
		return xmledit.Changed, nil
	case xmledit.Ends(path, "disk", "source") && r.disk.Source.Protocol != "":
		t.Attr = nil // host, TLS, …
		xmledit.Set(t, "file", "file", r.placed.To)
		return xmledit.Changed, nil
	case r.disk.Source.Protocol != "" && (path[len(path)-2] == "source" || xmledit.Ends(path, "disk", "auth")):
		return xmledit.Drop, nil // its hosts, its passwords
	case xmledit.Ends(path, "disk", "source"):
		r.source(t, r.placed.To)
		return xmledit.Changed, nil
	case xmledit.Ends(path, "source") && !top && (xmledit.Attr(t, "file") != "" || xmledit.Attr(t, "dev") != ""): // below it, or its data file
		was := xmledit.Attr(t, "file")
		if was == "" {
			was = xmledit.Attr(t, "dev")
		}
		to, ok := r.to(was)
		if !ok {
			return xmledit.Keep, r.missing(r.disk.Target.Dev, &sourceXML{File: was})
		}
		r.source(t, to)
		return xmledit.Changed, nil
	case xmledit.Ends(path, "backingStore") && xmledit.Attr(t, "type") == "block", xmledit.Ends(path, "dataStore") && xmledit.Attr(t, "type") == "block":
		xmledit.Set(t, "type", "type", "file")
		return xmledit.Changed, nil
	}
	return xmledit.Keep, nil
}

// source has a <source> name a file.
func (r *rewriter) source(t *xml.StartElement, to string) {
	for _, name := range []string{"pool", "volume", "mode", "index"} {
		xmledit.Unset(t, name)
	}
	if xmledit.Attr(t, "dev") != "" {
		xmledit.Set(t, "dev", "file", to)
		return
	}
	xmledit.Set(t, "file", "file", to)
}

func (r *rewriter) replace(t *xml.StartElement, name, what string) (xmledit.What, error) {
	to, ok := r.to(xmledit.Attr(t, name))
	if !ok {
		r.problem(fmt.Errorf("%s (%s) is not in the copy: it %w; --without=snapshots leaves it out", what, xmledit.Attr(t, name), ErrOutside))
		return xmledit.Keep, nil
	}
	xmledit.Set(t, name, name, to)
	return xmledit.Changed, nil
}

// machine looks whether the host has the machine type.
func (r *rewriter) machine(t *xml.StartElement) (xmledit.What, error) {
	was := xmledit.Attr(t, "machine")
	if was == "" {
		return xmledit.Keep, nil
	}
	now := r.named("machine", was)
	if r.current {
		have, err := r.o.Conn.Machines(r.ctx, r.arch)
		if err != nil {
			return xmledit.Keep, err
		}
		if !slices.Contains(have, now) {
			r.problem(fmt.Errorf("this host's QEMU has no machine type %s (%s): --map machine:%s=OTHER, one of: virsh capabilities", now, r.arch, was))
		}
	}
	xmledit.Set(t, "machine", "machine", now)
	return xmledit.Changed, nil
}

// network looks for the network or bridge of an interface.
func (r *rewriter) network(t *xml.StartElement) (xmledit.What, error) {
	name, bridge := xmledit.Attr(t, "network"), xmledit.Attr(t, "bridge")
	switch {
	case name != "":
		now := r.named("network", name)
		if _, err := r.o.Conn.NetworkXML(r.ctx, now); err != nil && r.current {
			r.note("there is no network %s here: --map network:%s=OTHER, or define it (virsh net-define)%s", now, name, r.saved(archive.Network, name))
		}
		xmledit.Set(t, "network", "network", now)
		xmledit.Unset(t, "portid")
	case bridge != "":
		now := r.named("bridge", bridge)
		if r.current && !exists("/sys/class/net/"+now) {
			r.note("there is no bridge %s here: --map bridge:%s=OTHER, or make it", now, bridge)
		}
		xmledit.Set(t, "bridge", "bridge", now)
	case xmledit.Attr(t, "dev") != "":
		now := r.named("bridge", xmledit.Attr(t, "dev"))
		if r.current && !exists("/sys/class/net/"+now) {
			r.note("there is no network device %s here: --map bridge:%s=OTHER", now, xmledit.Attr(t, "dev"))
		}
		xmledit.Set(t, "dev", "dev", now)
	default:
		return xmledit.Keep, nil
	}
	return xmledit.Changed, nil
}

// saved says where the copy has the definition of something.
func (r *rewriter) saved(kind archive.Kind, name string) string {
	for _, f := range r.m.Files {
		if f.Kind == kind && f.Name == name {
			return ", as it was: " + r.a.Path(f.Path)
		}
	}
	return ""
}

func (r *rewriter) text(path []string, s string) (string, error) {
	domain := len(path) >= 2 && (path[len(path)-2] == "domain" || path[len(path)-2] == "inactiveDomain")
	switch {
	case domain && xmledit.Ends(path, "name"):
		return r.as.name, nil
	case domain && xmledit.Ends(path, "uuid"), xmledit.Ends(path, "system", "entry") && s == r.as.oldUUID:
		return r.as.uuid, nil
	case domain && xmledit.Ends(path, "genid") && r.as.on:
		return newUUID(), nil
	case xmledit.Ends(path, "os", "nvram"):
		return r.as.path(r.Plan.path(s)), nil
	case xmledit.Ends(path, "os", "kernel"), xmledit.Ends(path, "os", "initrd"), xmledit.Ends(path, "os", "dtb"):
		if to, ok := r.to(s); ok {
			return to, nil
		}
		return r.installed(s), nil
	case xmledit.Ends(path, "os", "loader"), xmledit.Ends(path, "devices", "emulator"):
		return r.installed(s), nil
	}
	return s, nil
}

// installed is a program or firmware of the host's own.
func (r *rewriter) installed(name string) string {
	now := r.Plan.path(name)
	if _, err := os.Stat(now); err != nil && strings.HasPrefix(now, "/") && r.current {
		r.problem(fmt.Errorf("this host has no %s: install it, or --map %s=OTHER", now, name))
	}
	return now
}

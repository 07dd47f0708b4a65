// SPDX-License-Identifier: Apache-2.0

package libvirtd

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/digitalocean/go-libvirt"
)

// Domain is one domain as libvirt lists it.
type Domain struct {
	Name   string
	UUID   string
	Active bool // it has a process: it runs, or is paused
	handle libvirt.Domain
}

func domain(d libvirt.Domain) Domain {
	return Domain{Name: d.Name, UUID: uuid(d.UUID), Active: d.ID > 0, handle: d}
}

func uuid(b libvirt.UUID) string {
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Gone stands for a domain that libvirt may not know any more.
func Gone(name, uuid string) (Domain, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	d := Domain{Name: name, UUID: uuid, handle: libvirt.Domain{Name: name, ID: -1}}
	if err != nil || len(b) != len(d.handle.UUID) {
		return Domain{}, fmt.Errorf("%q is no UUID", uuid)
	}
	copy(d.handle.UUID[:], b)
	return d, nil
}

// Domains lists all of them.
func (c *Conn) Domains(ctx context.Context) (all []Domain, err error) {
	err = c.ask(ctx, "list the domains", func(l *libvirt.Libvirt) error {
		domains, _, err := l.ConnectListAllDomains(1, 0)
		all = nil
		for _, d := range domains {
			all = append(all, domain(d))
		}
		return err
	})
	return all, err
}

// Domain finds one by its name.
func (c *Conn) Domain(ctx context.Context, name string) (d Domain, err error) {
	err = c.ask(ctx, "find domain "+name, func(l *libvirt.Libvirt) error {
		found, err := l.DomainLookupByName(name)
		d = domain(found)
		return err
	})
	return d, err
}

// Again looks the same domain up once more, by its UUID.
func (c *Conn) Again(ctx context.Context, d Domain) (now Domain, err error) {
	err = c.ask(ctx, "find domain "+d.Name, func(l *libvirt.Libvirt) error {
		found, err := l.DomainLookupByUUID(d.handle.UUID)
		now = domain(found)
		return err
	})
	return now, err
}

// XML says how a domain is described, and by whom.
type XML struct {
	Inactive bool // its definition, not what runs
	Secrets  bool // with passwords
}

// XML is a domain's description.
func (c *Conn) XML(ctx context.Context, d Domain, x XML) (text string, err error) {
	var flags libvirt.DomainXMLFlags
	if x.Inactive {
		flags |= libvirt.DomainXMLInactive
	}
	if x.Secrets {
		flags |= libvirt.DomainXMLSecure
	}
	err = c.ask(ctx, "describe domain "+d.Name, func(l *libvirt.Libvirt) error {
		text, err = l.DomainGetXMLDesc(d.handle, flags)
		return err
	})
	return text, err
}

// DiskSize is how large a disk of a running domain is for its guest.
func (c *Conn) DiskSize(ctx context.Context, d Domain, target string) (size int64, err error) {
	err = c.ask(ctx, "look at "+target+" of "+d.Name, func(l *libvirt.Libvirt) error {
		_, n, _, err := l.DomainGetBlockInfo(d.handle, target, 0)
		size = int64(n)
		return err
	})
	return size, err
}

// Persistent says whether a domain has a definition.
func (c *Conn) Persistent(ctx context.Context, d Domain) (is bool, err error) {
	err = c.ask(ctx, "look at domain "+d.Name, func(l *libvirt.Libvirt) error {
		n, err := l.DomainIsPersistent(d.handle)
		is = n == 1
		return err
	})
	return is, err
}

// State is what `virsh domstate` says: "running", "paused", "shut off", …
func (c *Conn) State(ctx context.Context, d Domain) (state string, err error) {
	err = c.ask(ctx, "look at domain "+d.Name, func(l *libvirt.Libvirt) error {
		n, _, err := l.DomainGetState(d.handle, 0)
		state = stateName(libvirt.DomainState(n))
		return err
	})
	return state, err
}

// Migrated says whether a domain does not run because it went to another host. libvirtd forgets that when it is restarted.
func (c *Conn) Migrated(ctx context.Context, d Domain) (is bool, err error) {
	err = c.ask(ctx, "look at domain "+d.Name, func(l *libvirt.Libvirt) error {
		n, reason, err := l.DomainGetState(d.handle, 0)
		is = libvirt.DomainState(n) == libvirt.DomainShutoff && libvirt.DomainShutoffReason(reason) == libvirt.DomainShutoffMigrated
		return err
	})
	return is, err
}

func stateName(s libvirt.DomainState) string {
	names := map[libvirt.DomainState]string{
		libvirt.DomainRunning: "running", libvirt.DomainBlocked: "blocked", libvirt.DomainPaused: "paused",
		libvirt.DomainShutdown: "in shutdown", libvirt.DomainShutoff: "shut off", libvirt.DomainCrashed: "crashed",
		libvirt.DomainPmsuspended: "pmsuspended",
	}
	return names[s]
}

// Saved says whether a domain has a managed-save image.
func (c *Conn) Saved(ctx context.Context, d Domain) (is bool, err error) {
	err = c.ask(ctx, "look at domain "+d.Name, func(l *libvirt.Libvirt) error {
		n, err := l.DomainHasManagedSaveImage(d.handle, 0)
		is = n == 1
		return err
	})
	return is, err
}

// Metadata is the description of something that has a name.
type Metadata struct {
	Name, XML string
	Current   bool // the snapshot that the domain is at
}

// Snapshots are a domain's, each after those that it stands on.
func (c *Conn) Snapshots(ctx context.Context, d Domain) (all []Metadata, err error) {
	err = c.ask(ctx, "list the snapshots of domain "+d.Name, func(l *libvirt.Libvirt) error {
		const topological = 1 << 10 // VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL
		list, _, err := l.DomainListAllSnapshots(d.handle, 1, topological)
		all = nil
		for _, s := range list {
			text, err := l.DomainSnapshotGetXMLDesc(s, 0)
			if err != nil {
				return err
			}
			current, err := l.DomainSnapshotIsCurrent(s, 0)
			if err != nil {
				return err
			}
			all = append(all, Metadata{s.Name, text, current == 1})
		}
		return err
	})
	return all, err
}

// Checkpoints are a domain's, each after those that it stands on.
func (c *Conn) Checkpoints(ctx context.Context, d Domain) (all []Metadata, err error) {
	err = c.ask(ctx, "list the checkpoints of domain "+d.Name, func(l *libvirt.Libvirt) error {
		const topological = 1 << 2 // VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL
		list, _, err := l.DomainListAllCheckpoints(d.handle, 1, topological)
		all = nil
		for _, s := range list {
			text, err := l.DomainCheckpointGetXMLDesc(s, 0)
			if err != nil {
				return err
			}
			all = append(all, Metadata{Name: s.Name, XML: text})
		}
		return err
	})
	return all, err
}

// NetworkXML is the definition of a virtual network.
func (c *Conn) NetworkXML(ctx context.Context, name string) (text string, err error) {
	err = c.ask(ctx, "describe network "+name, func(l *libvirt.Libvirt) error {
		n, err := l.NetworkLookupByName(name)
		if err == nil {
			text, err = l.NetworkGetXMLDesc(n, 1) // inactive: without what is plugged in just now
		}
		return err
	})
	return text, err
}

// PoolXML is the definition of a storage pool.
func (c *Conn) PoolXML(ctx context.Context, name string) (text string, err error) {
	err = c.ask(ctx, "describe storage pool "+name, func(l *libvirt.Libvirt) error {
		p, err := l.StoragePoolLookupByName(name)
		if err == nil {
			text, err = l.StoragePoolGetXMLDesc(p, 0)
		}
		return err
	})
	return text, err
}

// VolumePath is where a volume of a storage pool is.
func (c *Conn) VolumePath(ctx context.Context, pool, volume string) (path string, err error) {
	err = c.ask(ctx, "find volume "+volume+" of storage pool "+pool, func(l *libvirt.Libvirt) error {
		p, err := l.StoragePoolLookupByName(pool)
		if err != nil {
			return err
		}
		v, err := l.StorageVolLookupByName(p, volume)
		if err == nil {
			path, err = l.StorageVolGetPath(v)
		}
		return err
	})
	return path, err
}

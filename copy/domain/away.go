// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"imgward/copy/domain/libvirtd"
	"imgward/guard"
)

// errAway: the domain went to another host with its disks on overlays. libvirt refuses a migration while a block job or a
// backup is under way, but not while the disks are frozen. The domain runs on the overlays there: they must stay, and what
// is below them too, until a libvirt that knows the domain has merged them. QEMU's image locks would keep qemu-img out, where
// the storage has locks between hosts.
var errAway = errors.New("the domain migrated to another host")

// away says what happened, and what to do now.
func (m *merger) away() error {
	var files []string
	for _, o := range m.in.Overlays {
		if o.Phase != back {
			files = append(files, o.File)
		}
	}
	return fmt.Errorf("domain %s migrated to another host, and its writes go to %s, which must stay until they are merged; to have that done there: "+
		"imgcp domain --connect qemu+ssh://HOST/system --repair %s", m.in.Domain, strings.Join(files, ", "), guard.ShellWord(m.in.Domain))
}

// here makes sure that a domain that does not run is not running elsewhere. Who names another libvirt than the one it was
// copied from says where it is.
func (m *merger) here(ctx context.Context) error {
	if m.conn.URI() != m.in.URI {
		return nil
	}
	away, err := m.conn.Migrated(ctx, m.d)
	if errors.Is(err, libvirtd.ErrNoDomain) {
		away, err = false, nil
	}
	if err == nil && !away {
		away = loggedAway(filepath.Join(logDir, m.in.Domain+".log"))
	}
	if err == nil && away {
		err = errAway
	}
	return err
}

// logDir is where libvirt's qemu driver has its log of each domain.
const logDir = "/var/log/libvirt/qemu"

// loggedAway looks for how a domain ended last (qemuProcessStop), for libvirt forgets that: of a transient domain at once, of
// others when it is restarted.
func loggedAway(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	const enough = 64 << 10
	if n, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, n-enough), io.SeekStart)
	}
	b, _ := io.ReadAll(io.LimitReader(f, enough))
	ends := logged.FindAllString(string(b), -1)
	return len(ends) > 0 && strings.HasSuffix(ends[len(ends)-1], "migrated")
}

// logged is a start, which ends what is before it (a power cut is not logged), or an end.
var logged = regexp.MustCompile(`: starting up libvirt|: shutting down, reason=\w+`)

// redefineHome is for a domain that was merged on another host than it was copied from: its definition here, if it has one,
// names the overlays as well.
func (m *merger) redefineHome(ctx context.Context) error {
	if m.conn.URI() == m.in.URI || len(m.in.Overlays) == 0 {
		return nil
	}
	home := libvirtd.New(m.in.URI)
	defer home.Close()
	d, err := home.Again(ctx, m.d)
	if errors.Is(err, libvirtd.ErrNoDomain) {
		return nil
	}
	if err == nil {
		err = redefine(ctx, home, d, m.in.Overlays...)
	}
	if err != nil {
		return fmt.Errorf("the definition at %s: %w", m.in.URI, err)
	}
	return nil
}

var overlayName = regexp.MustCompile(`\.imgcp-[0-9a-f]{8}\.qcow2$`)

// strange says which disks are on overlays that nothing is known of here: the domain came from where it was being copied.
func strange(ctx context.Context, conn *libvirtd.Conn, d libvirtd.Domain) error {
	desc, err := lookAt(ctx, conn, d)
	if err != nil {
		return err
	}
	for _, disk := range desc.Disks {
		if overlayName.MatchString(disk.path) {
			err = errors.Join(err, fmt.Errorf("%s of domain %s is on %s, an overlay of an imgcp on another host: have it merged there (imgcp domain "+
				"--connect qemu+ssh://THIS-HOST/system --repair %s). If that host is no more: virsh blockcommit --path %s --active --shallow --pivot %s",
				disk.Target.Dev, d.Name, disk.path, guard.ShellWord(d.Name), disk.Target.Dev, guard.ShellWord(d.Name)))
		}
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// renamed is what a domain gets in the place of what was its alone (Options.As).
type renamed struct {
	on            bool
	oldName, name string
	oldUUID, uuid string
	addresses     map[string]string // MAC addresses, by the old one
}

// rename chooses the names.
func (p *Plan) rename() error {
	p.Domain, p.UUID = p.m.Domain, p.m.UUID
	p.as = renamed{oldName: p.Domain, name: p.Domain, oldUUID: p.UUID, uuid: p.UUID, addresses: make(map[string]string)}
	if p.o.As == "" {
		return nil
	}
	if strings.ContainsAny(p.o.As, "/\n") || p.o.As == p.Domain {
		return errors.New("--as: another name, without a slash")
	}
	p.Domain, p.UUID = p.o.As, newUUID()
	p.as.on, p.as.name, p.as.uuid = true, p.Domain, p.UUID
	return nil
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// path renames what libvirt names after the domain: firmware variables (NAME_VARS.fd) and the TPM's directory (its UUID).
func (r *renamed) path(path string) string {
	if !r.on {
		return path
	}
	dir, base := filepath.Split(path)
	if rest, ok := strings.CutPrefix(base, r.oldName+"_VARS"); ok {
		return dir + r.name + "_VARS" + rest
	}
	return strings.Replace(path, "/"+r.oldUUID+"/", "/"+r.uuid+"/", 1)
}

// address is a MAC address: the same for the same, in QEMU's range.
func (r *renamed) address(mac string) string {
	if !r.on {
		return mac
	}
	if r.addresses[mac] == "" {
		var b [3]byte
		rand.Read(b[:])
		r.addresses[mac] = fmt.Sprintf("52:54:00:%02x:%02x:%02x", b[0], b[1], b[2])
	}
	return r.addresses[mac]
}

// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// aclOps set and print POSIX ACLs, written as setfacl writes them: u::rwx,u:65534:r--,g::r-x,m::r-x,o::---
var aclOps = map[string]operation{
	"setacl": func(c *call) (string, error) {
		path, name := c.str(), aclName(c.str())
		data, err := encodeACL(c.str())
		if err != nil {
			return "", err
		}
		return "", unix.Setxattr(path, name, data, 0)
	},
	"getacl": func(c *call) (string, error) {
		path, name := c.str(), aclName(c.str())
		text, err := value(func(b []byte) (int, error) { return unix.Getxattr(path, name, b) })
		if err != nil {
			return "", err
		}
		return decodeACL([]byte(text))
	},
	"removeacl": func(c *call) (string, error) { return "", unix.Removexattr(c.str(), aclName(c.str())) },
}

func aclName(kind string) string {
	if kind != "access" && kind != "default" {
		panic(badCall("an ACL is access or default"))
	}
	return "system.posix_acl_" + kind
}

// The tags of include/uapi/linux/posix_acl.h, in the order that the kernel wants.
var aclTags = []struct {
	tag   uint16
	class string
	named bool
}{{1, "u", false}, {2, "u", true}, {4, "g", false}, {8, "g", true}, {16, "m", false}, {32, "o", false}}

const (
	aclVersion = 2
	noID       = 0xffffffff
)

func encodeACL(text string) ([]byte, error) {
	data := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, entry := range strings.Split(text, ",") {
		parts := strings.Split(entry, ":")
		if len(parts) != 3 {
			return nil, fmt.Errorf("ACL entry %q", entry)
		}
		id := uint64(noID)
		if parts[1] != "" {
			var err error
			if id, err = strconv.ParseUint(parts[1], 10, 32); err != nil {
				return nil, fmt.Errorf("ACL entry %q: %w", entry, err)
			}
		}
		for _, t := range aclTags {
			if t.class == parts[0] && t.named == (parts[1] != "") {
				data = binary.LittleEndian.AppendUint16(data, t.tag)
				data = binary.LittleEndian.AppendUint16(data, permissions(parts[2]))
				data = binary.LittleEndian.AppendUint32(data, uint32(id))
			}
		}
	}
	return data, nil
}

func permissions(text string) uint16 {
	var bits uint16
	for i, letter := range "xwr" {
		if strings.ContainsRune(text, letter) {
			bits |= 1 << i
		}
	}
	return bits
}

func decodeACL(data []byte) (string, error) {
	if len(data) < 4 || binary.LittleEndian.Uint32(data) != aclVersion || len(data)%8 != 4 {
		return "", fmt.Errorf("no POSIX ACL: %x", data)
	}
	var entries []string
	for data = data[4:]; len(data) > 0; data = data[8:] {
		tag, perm := binary.LittleEndian.Uint16(data), binary.LittleEndian.Uint16(data[2:])
		for _, t := range aclTags {
			if t.tag != tag {
				continue
			}
			id := ""
			if t.named {
				id = fmt.Sprint(binary.LittleEndian.Uint32(data[4:]))
			}
			entries = append(entries, t.class+":"+id+":"+rwx(perm))
		}
	}
	return strings.Join(entries, ","), nil
}

func rwx(perm uint16) string {
	out := []byte("---")
	for i, letter := range []byte("rwx") {
		if perm&(4>>i) != 0 {
			out[i] = letter
		}
	}
	return string(out)
}

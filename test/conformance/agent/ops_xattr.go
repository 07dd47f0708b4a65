// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// xattrOps work on extended attributes. A leading l does not follow a symlink, a leading f takes a descriptor.
var xattrOps = map[string]operation{
	"setxattr": func(c *call) (string, error) {
		return "", unix.Setxattr(c.str(), c.str(), []byte(c.str()), c.optionalFlags())
	},
	"lsetxattr": func(c *call) (string, error) {
		return "", unix.Lsetxattr(c.str(), c.str(), []byte(c.str()), c.optionalFlags())
	},
	"fsetxattr": func(c *call) (string, error) {
		return "", unix.Fsetxattr(c.fd(), c.str(), []byte(c.str()), c.optionalFlags())
	},
	// bigxattr sets a value of so many bytes.
	"bigxattr": func(c *call) (string, error) {
		return "", unix.Lsetxattr(c.str(), c.str(), make([]byte, c.int()), 0)
	},
	"getxattr": func(c *call) (string, error) {
		path, name := c.str(), c.str()
		return value(func(b []byte) (int, error) { return unix.Getxattr(path, name, b) })
	},
	"lgetxattr": func(c *call) (string, error) {
		path, name := c.str(), c.str()
		return value(func(b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
	},
	"fgetxattr": func(c *call) (string, error) {
		fd, name := c.fd(), c.str()
		return value(func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
	},
	// sizexattr asks with a buffer of so many bytes and prints the count that comes back.
	"sizexattr":    func(c *call) (string, error) { return count(unix.Lgetxattr(c.str(), c.str(), make([]byte, c.int()))) },
	"sizelist":     func(c *call) (string, error) { return count(unix.Llistxattr(c.str(), make([]byte, c.int()))) },
	"removexattr":  func(c *call) (string, error) { return "", unix.Removexattr(c.str(), c.str()) },
	"lremovexattr": func(c *call) (string, error) { return "", unix.Lremovexattr(c.str(), c.str()) },
	"fremovexattr": func(c *call) (string, error) { return "", unix.Fremovexattr(c.fd(), c.str()) },
	"listxattr": func(c *call) (string, error) {
		path := c.str()
		return names(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	},
	"flistxattr": func(c *call) (string, error) {
		fd := c.fd()
		return names(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	},
}

func (c *call) optionalFlags() int {
	if c.more() {
		return c.flags()
	}
	return 0
}

func value(get func([]byte) (int, error)) (string, error) {
	buf := make([]byte, 65536)
	n, err := get(buf)
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "empty", nil
	}
	return string(buf[:n]), nil
}

// names prints a list of attributes in order, for the order is the file system's affair.
func names(list func([]byte) (int, error)) (string, error) {
	text, err := value(list)
	if err != nil || text == "empty" {
		return text, err
	}
	all := strings.Split(strings.TrimSuffix(text, "\x00"), "\x00")
	sort.Strings(all)
	return strings.Join(all, " "), nil
}

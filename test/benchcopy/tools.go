// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// tool is one way to copy src to dst. A %s stands for a path: first the source, then the destination.
type tool struct {
	name    string
	args    []string
	durable []string // added when durability is measured; nil: fsync of the destination is timed with it
	ours    bool
	through bool                                          // through the view
	limit   func(dst string) (seconds float64, err error) // instead of args: what the medium takes
}

// command is the tool's command line.
func (t tool) command(src, dst string, durable bool) []string {
	paths := strings.NewReplacer("{src}", src, "{dst}", dst)
	var args []string
	for _, a := range t.args {
		switch {
		case a == "{sync}" && durable:
			continue // imgcp's own default
		case a == "{sync}":
			a = "--sync=none"
		case a == "{durable}":
			if durable {
				args = append(args, t.durable...)
			}
			continue
		}
		args = append(args, paths.Replace(a))
	}
	return args
}

// imgcps are ours; --sync=none stands for what the others do when they are not asked to be durable.
func imgcps(c *config) []tool {
	return []tool{{name: "imgcp", args: []string{c.imgcp, "-q", "--reflink=never", "{sync}", "{src}", "{dst}"}, ours: true}}
}

// peers are the copy tools of a Debian host, as people call them and as they are fastest.
var peers = []tool{
	{name: "cp", args: []string{"cp", "--reflink=never", "{src}", "{dst}"}},
	{name: "cp --sparse=always", args: []string{"cp", "--reflink=never", "--sparse=always", "{src}", "{dst}"}},
	{name: "dd bs=1M", args: []string{"dd", "if={src}", "of={dst}", "bs=1M", "{durable}"}, durable: []string{"conv=fsync"}},
	{name: "dd bs=1M direct", args: []string{"dd", "if={src}", "of={dst}", "bs=1M", "iflag=direct", "oflag=direct", "{durable}"}, durable: []string{"conv=fsync"}},
	{name: "qemu-img convert", args: []string{"qemu-img", "convert", "-f", "raw", "-O", "raw", "{src}", "{dst}"}},
	{name: "qemu-img -W -m 16 direct", args: []string{"qemu-img", "convert", "-f", "raw", "-O", "raw", "-W", "-m", "16", "-t", "none", "-T", "none", "{src}", "{dst}"}},
	{name: "nbdcopy", args: []string{"nbdcopy", "{durable}", "{src}", "{dst}"}, durable: []string{"--flush"}},
	{name: "ddrescue", args: []string{"ddrescue", "-q", "--force", "--sparse", "{src}", "{dst}"}},
}

// viewers are imgcp and cp, beside the view and through it.
func viewers(c *config) []tool {
	us := tool{name: "imgcp", args: []string{c.imgcp, "-q", "--reflink=never", "{sync}", "{src}", "{dst}"}, ours: true}
	cp := tool{name: "cp", args: []string{"cp", "--reflink=never", "{src}", "{dst}"}}
	usThrough, cpThrough := us, cp
	usThrough.name, usThrough.through = "imgcp, through the view", true
	cpThrough.name, cpThrough.through = "cp, through the view", true
	return []tool{us, usThrough, cp, cpThrough}
}

func reflinkers(c *config) []tool {
	return []tool{
		{name: "imgcp", args: []string{c.imgcp, "-q", "{sync}", "{src}", "{dst}"}, ours: true},
		{name: "cp --reflink=always", args: []string{"cp", "--reflink=always", "{src}", "{dst}"}},
		{name: "cp", args: []string{"cp", "{src}", "{dst}"}},
	}
}

// creators make a new image of zeroes with every block reserved.
func creators(c *config, size int64) []tool {
	count := fmt.Sprintf("count=%d", size/mib)
	return []tool{
		{name: "imgcp dd", args: []string{c.imgcp, "dd", "if=/dev/zero", "of={dst}", "bs=1M", count, "status=none", "{durable}"}, durable: []string{"conv=fsync"}, ours: true},
		{name: "dd bs=1M", args: []string{"dd", "if=/dev/zero", "of={dst}", "bs=1M", count, "{durable}"}, durable: []string{"conv=fsync"}},
		{name: "dd bs=1M direct", args: []string{"dd", "if=/dev/zero", "of={dst}", "bs=1M", count, "oflag=direct", "{durable}"}, durable: []string{"conv=fsync"}},
		{name: "qemu-img create full", args: []string{"qemu-img", "create", "-q", "-f", "raw", "-o", "preallocation=full", "{dst}", fmt.Sprint(size)}},
		{name: "qemu-img create falloc", args: []string{"qemu-img", "create", "-q", "-f", "raw", "-o", "preallocation=falloc", "{dst}", fmt.Sprint(size)}},
		{name: "fallocate", args: []string{"fallocate", "-l", fmt.Sprint(size), "{dst}"}},
	}
}

// devicePeers write to a device. -n: the target exists.
func devicePeers(c *config) []tool {
	t := []tool{{name: "imgcp", args: []string{c.imgcp, "--overwrite", "--yes", "-q", "{sync}", "{src}", "{dst}"}, ours: true}}
	for _, p := range without(peers, "cp --sparse") {
		if strings.HasPrefix(p.name, "qemu-img") {
			p.args = append(append([]string{}, p.args...), "-n")
		}
		p.args = slices.DeleteFunc(slices.Clone(p.args), func(a string) bool { return a == "--sparse" }) // ddrescue's is for files
		t = append(t, p)
	}
	return t
}

// without leaves out the tools whose names begin with one of the prefixes: they would read 8 TiB of nothing.
func without(tools []tool, prefixes ...string) []tool {
	var rest []tool
	for _, t := range tools {
		keep := true
		for _, p := range prefixes {
			keep = keep && !strings.HasPrefix(t.name, p)
		}
		if keep {
			rest = append(rest, t)
		}
	}
	return rest
}

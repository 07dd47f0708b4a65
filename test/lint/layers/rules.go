// SPDX-License-Identifier: Apache-2.0

package main

// rule says who may import a package tree, and why nobody else may.
type rule struct {
	imported string
	by       []string // package trees
	reason   string
}

// rules is the architecture: cmd → fs, copy → guard.
var rules = []rule{
	{"imgward/cmd/imgward", []string{"imgward/cmd/imgward"}, "commands are the top: what they share belongs into fs, copy or guard"},
	{"imgward/cmd/imgcp", []string{"imgward/cmd/imgcp"}, "commands are the top: what they share belongs into fs, copy or guard"},
	{"imgward/fs", []string{"imgward/fs", "imgward/cmd/imgward", "imgward/test"},
		"the view sits below the imgward command alone; imgcp works without one and must not link FUSE"},
	{"imgward/copy", []string{"imgward/copy", "imgward/cmd/imgcp", "imgward/test"},
		"the copy engine sits below imgcp alone; the daemon copies nothing"},
	{"imgward/guard", []string{"imgward/guard", "imgward/fs", "imgward/copy", "imgward/cmd", "imgward/test"},
		"the guard is the bottom layer, asked by fs and copy"},
	{"imgward/test", []string{"imgward/test", "imgward/copy/internal"}, "test code is not part of the product"},
	{"github.com/hanwen/go-fuse/v2", []string{"imgward/fs", "imgward/test", "imgward/copy/internal/testfault"},
		"only the view speaks FUSE; guard and copy must be usable without a mount"},
	{"libvirt.org/go/libvirtxml", []string{"imgward/guard/libvirt", "imgward/test"},
		"libvirt's XML is one source of evidence among others, kept behind one package"},
	{"github.com/digitalocean/go-libvirt", []string{"imgward/copy/domain/libvirtd", "imgward/test"},
		"libvirt's protocol is spoken in one place, which gives every call a time limit"},
	{"github.com/prometheus", []string{"imgward/cmd"},
		"fs, copy and guard count in plain fields; only the command exports metrics"},
	{"github.com/spf13/cobra", []string{"imgward/cmd"}, "flags and help belong to the commands"},
	{"github.com/cilium/ebpf", []string{"imgward/guard/lsm"}, "what the kernel refuses by itself is one layer, kept behind one package"},
	{"go.etcd.io", []string{"imgward/guard/etcd"}, "other hosts are one source of evidence, kept behind one package"},
}

func (r rule) mayImport(pkg string) bool {
	for _, tree := range r.by {
		if within(pkg, tree) {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// libvirtDirs are replaced by empty copies in the sandbox.
var libvirtDirs = []string{"/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"}

// libvirtdConf lets root in without polkit, which needs the D-Bus that the sandbox does not have.
const libvirtdConf = `auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_outputs = "3:stderr"
`

// Paths below a sandbox's root.
const (
	imgwardBin = "bin/imgward"
	imgcpBin   = "bin/imgcp"
	kernelFile = "guest/vmlinux"
	initrdFile = "guest/initramfs"
)

// prepare fills the sandbox's root, still outside of the namespaces (go build needs its cache, and the network may be
// needed for modules).
func prepare(root string) error {
	for _, dir := range []string{"bin", "guest"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range libvirtDirs {
		if err := cloneDirs(dir, filepath.Join(root, dir)); err != nil {
			return fmt.Errorf("%w (libvirt is needed: make deps)", err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/libvirt/libvirtd.conf"), []byte(libvirtdConf), 0o644); err != nil {
		return err
	}
	if err := prepareGuest(root); err != nil {
		return err
	}
	return buildCommands(root)
}

// cloneDirs copies the directories of a tree, with owner and mode, but no files: libvirt's own layout without the host's
// domains, networks and images.
func cloneDirs(src, dst string) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		to := filepath.Join(dst, strings.TrimPrefix(path, src))
		st := info.Sys().(*syscall.Stat_t)
		return errors.Join(os.Mkdir(to, 0o700), os.Chown(to, int(st.Uid), int(st.Gid)), os.Chmod(to, info.Mode().Perm()))
	})
}

// buildCommands puts the commands under test into the sandbox: the ones that IMGWARD_BIN (a directory) holds, as built by
// `make build`, or else freshly built ones.
func buildCommands(root string) error {
	if Native() {
		return nil
	}
	if dir := os.Getenv("IMGWARD_BIN"); dir != "" {
		return errors.Join(
			copyFile(filepath.Join(dir, "imgward"), filepath.Join(root, imgwardBin), 0o755),
			copyFile(filepath.Join(dir, "imgcp"), filepath.Join(root, imgcpBin), 0o755))
	}
	return errors.Join(
		goBuild(filepath.Join(root, imgwardBin), "imgward/cmd/imgward"),
		goBuild(filepath.Join(root, imgcpBin), "imgward/cmd/imgcp"))
}

// goBuild builds a package of this module as the Makefile does: static.
func goBuild(out, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, msg)
	}
	return nil
}

func copyFile(src, dst string, mode os.FileMode) error {
	b, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	return os.WriteFile(dst, b, mode)
}

// within reports whether path is below dir.
func within(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

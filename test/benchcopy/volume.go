// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// volume is a file system on a loop device, mounted on a directory of its own.
type volume struct {
	name, dir  string // the file system's, and where it is mounted
	image, dev string
	spare      string // another loop device, for rows that copy to or from one
	view       string // where an imgward view of dir is mounted
	imgward    string
}

// makeVolume makes a file system on a loop device.
func makeVolume(fs, base string, size int64) (*volume, error) {
	root, err := os.MkdirTemp(base, "benchcopy-")
	if err != nil {
		return nil, err
	}
	v := &volume{name: fs, dir: filepath.Join(root, "mnt"), image: filepath.Join(root, "image")}
	if err := errors.Join(os.Mkdir(v.dir, 0o700), allocate(v.image, size)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(root))
	}
	if v.dev, err = attach(v.image); err != nil {
		return nil, errors.Join(err, os.RemoveAll(root))
	}
	mkfs := map[string][]string{"ext4": {"mkfs.ext4", "-q", "-F"}, "xfs": {"mkfs.xfs", "-q", "-f"}, "btrfs": {"mkfs.btrfs", "-q", "-f"}}[fs]
	if mkfs == nil {
		return nil, errors.Join(fmt.Errorf("no such file system here: %s", fs), v.remove())
	}
	if err := errors.Join(command(append(mkfs, v.dev)...), command("mount", v.dev, v.dir)); err != nil {
		return nil, errors.Join(err, v.remove())
	}
	return v, nil
}

// allocate makes a file that a loop device can write to without waiting for its file system. What lies in memory takes
// none before it is written.
func allocate(name string, size int64) error {
	inMemory, err := onTmpfs(filepath.Dir(name))
	if err != nil {
		return err
	}
	if inMemory {
		return command("truncate", "-s", fmt.Sprint(size), name)
	}
	return command("fallocate", "-l", fmt.Sprint(size), name)
}

// attach returns a free loop device for the file.
func attach(file string) (string, error) {
	inMemory, err := onTmpfs(file)
	if err != nil {
		return "", err
	}
	args := []string{"--find", "--show", file}
	if !inMemory { // or the tools are measured against the host's page cache
		args = append(args, "--direct-io=on")
	}
	out, err := exec.Command("losetup", args...).Output()
	return strings.TrimSpace(string(out)), err
}

func onTmpfs(name string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(name, &st)
	return st.Type == unix.TMPFS_MAGIC, err
}

// sync waits for what was written to the volume.
func (v *volume) sync() error {
	d, err := os.Open(v.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// path is a file on the volume, directly or through the view.
func (v *volume) path(name string, through bool) string {
	if through {
		return filepath.Join(v.view, name)
	}
	return filepath.Join(v.dir, name)
}

// addDevice makes a loop device beside the volume.
func (v *volume) addDevice(size int64) (err error) {
	file := filepath.Join(filepath.Dir(v.image), "spare")
	if err := allocate(file, size); err != nil {
		return err
	}
	v.spare, err = attach(file)
	return err
}

// addView mounts a view of the volume.
func (v *volume) addView(imgward string) error {
	dir := filepath.Join(filepath.Dir(v.image), "view")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := command(imgward, "mount", "--backing", v.dir, dir); err != nil {
		return err
	}
	v.view, v.imgward = dir, imgward
	return nil
}

// remove takes down whatever there is. What is still mounted is not removed: it would be emptied.
func (v *volume) remove() error {
	var err error
	if v.view != "" {
		err = command(v.imgward, "umount", v.view)
	}
	if mounted(v.dir) {
		err = errors.Join(err, command("umount", v.dir))
	}
	for _, dev := range []string{v.dev, v.spare} {
		if dev != "" {
			err = errors.Join(err, command("losetup", "-d", dev))
		}
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(filepath.Dir(v.image))
}

// mounted reports whether something is mounted on dir: it is on another device than its parent.
func mounted(dir string) bool {
	var here, above unix.Stat_t
	return unix.Stat(dir, &here) == nil && unix.Stat(filepath.Dir(dir), &above) == nil && here.Dev != above.Dev
}

func command(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

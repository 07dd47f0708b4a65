// SPDX-License-Identifier: Apache-2.0

package claims

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/guard/layers"
)

// claim opens a device for ourselves. why says why that is not to be had: it is somebody else's, which is as good, and no error.
func (l *Layer) claim(w device) (why string, err error) {
	fd, err := open(w)
	switch {
	case errors.Is(err, unix.EBUSY):
		return heldBy(l.stack, w.id), nil
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOMEDIUM):
		return "there is nothing in it", nil
	case err != nil:
		return err.Error(), fmt.Errorf("claim %s: %w", w.path, err)
	}
	if err := l.config.Keeper.Keep(nameOf(w.id), fd); err != nil {
		l.log.Warn("a claim would not survive the death of this process", "device", w.path, "error", err)
	}
	l.held[w.id] = &claim{fd: fd, path: w.path, uses: w.uses, images: w.images}
	l.log.Info("claimed a device", "device", w.path, "domain", w.uses[0].Domain, "target", w.uses[0].Target)
	return "", nil
}

// open opens the very device, under whatever of its names leads to it.
func open(w device) (fd int, err error) {
	err = unix.ENODEV
	for _, path := range []string{w.path, w.also} {
		if path == "" {
			continue
		}
		// O_NONBLOCK: a drive without a medium would be waited for.
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			return -1, err
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && layers.Device(st.Rdev) == w.id {
			return fd, nil
		}
		unix.Close(fd)
		err = unix.ENODEV
	}
	return -1, err
}

// heldBy says who has a device for himself.
func heldBy(stack layers.Stack, id layers.ID) string {
	if made := stack.HeldBy(id); len(made) > 0 {
		return "it is part of " + strings.Join(made, ", ")
	}
	if point := layers.MountedOn("/proc", id); point != "" {
		return "it is mounted on " + point
	}
	return "somebody else holds it for himself (O_EXCL): fuser -v tells who has it open"
}

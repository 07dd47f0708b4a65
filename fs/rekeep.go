// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"errors"
	"fmt"
)

// KeepAll gives a new keeper everything that the one before it held, the FUSE connection last: a keeper that has that
// can start a successor.
func (s *Session) KeepAll() error {
	fs := s.FS
	keep := func(name string, fd int) error {
		if err := fs.keeper.Keep(name, fd); err != nil {
			return fmt.Errorf("hand %s to the keeper: %w", name, err)
		}
		return nil
	}
	err := errors.Join(keep(keptTree, int(s.Tree.Fd())), keep(keptState, int(fs.region.File().Fd())),
		keep(keptRequests, int(s.requests.File().Fd())))
	fs.nodes.mounts.mu.RLock()
	for i := 1; i < len(fs.nodes.mounts.fds); i++ {
		err = errors.Join(err, keep(mountName(i), fs.nodes.mounts.fds[i]))
	}
	fs.nodes.mounts.mu.RUnlock()
	for _, n := range fs.handles.openNodes() {
		err = errors.Join(err, n.keepAgain(keep))
	}
	if err != nil {
		return err
	}
	return keep(keptDevice, s.device)
}

// keepAgain hands over what of a node's handles and locks a successor could not get otherwise.
func (n *node) keepAgain(keep func(name string, fd int) error) (err error) {
	a := n.activity()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		return nil
	}
	for _, h := range a.open.handles {
		if h.kept {
			err = errors.Join(err, keep(handleName(h.slot), h.fd))
		}
	}
	for _, own := range a.open.locks {
		for _, slot := range own.handles {
			err = errors.Join(err, keep(lockName(slot), own.fd))
		}
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package live

// Undo is a guardian that runs a command when this process ends without having dismissed it: for what is undone by more than
// a call of libvirt's, such as imgcp domain --repair.
type Undo struct{ g *guardian }

// StartUndo starts one. helper is the command line of a process that calls Guard.
func StartUndo(helper, command []string) (*Undo, error) {
	g, err := startGuardian(helper, script{Steps: []step{{Kind: run, Args: command}}}, nil)
	if err != nil {
		return nil, err
	}
	return &Undo{g}, nil
}

// Dismiss ends it with nothing run. One that was killed has done no harm.
func (u *Undo) Dismiss() { _ = u.g.drop() }

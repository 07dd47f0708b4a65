// SPDX-License-Identifier: Apache-2.0

package live

// Undo is a guardian that does one thing when this process ends without having dismissed it. A nil Undo does nothing.
type Undo struct{ g *guardian }

// StartUndo starts one that runs a command: for what is undone by more than a call of libvirt's, such as imgcp domain --repair.
// helper is the command line of a process that calls Guard.
func StartUndo(helper, command []string) (*Undo, error) {
	return startUndo(helper, step{Kind: run, Args: command})
}

// startRemover starts one that removes a file, which need not be there yet: a killed copy would leave an image's worth of it
// under a hidden name that nobody looks for.
func startRemover(helper []string, path string) (*Undo, error) {
	return startUndo(helper, step{Kind: remove, Args: []string{path}})
}

func startUndo(helper []string, s step) (*Undo, error) {
	g, err := startGuardian(helper, script{Steps: []step{s}}, nil)
	if err != nil {
		return nil, err
	}
	return &Undo{g}, nil
}

// Dismiss ends it with nothing done. One that was killed has done no harm.
func (u *Undo) Dismiss() {
	if u != nil {
		_ = u.g.drop()
	}
}

// SPDX-License-Identifier: Apache-2.0

package live

// remover is a guardian that removes files when this process ends without doing so itself: a killed copy would leave an
// image's worth of them under hidden names that nobody looks for. A nil remover does nothing.
type remover struct{ g *guardian }

// startRemover starts one for files that need not be there yet.
func startRemover(helper []string, paths ...string) (*remover, error) {
	g, err := startGuardian(helper, script{Steps: []step{{Kind: remove, Args: paths}}}, nil)
	if err != nil {
		return nil, err
	}
	return &remover{g}, nil
}

// stop ends it; what is still there stays.
func (r *remover) stop() {
	if r != nil {
		_ = r.g.drop() // one that was killed has done no harm
	}
}

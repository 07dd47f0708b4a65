package live

// janitor is a guardian that removes files when this process ends without doing so itself: a killed copy would leave an
// image's worth of them under hidden names that nobody looks for. A nil janitor does nothing.
type janitor struct{ w *ward }

// hire starts one for files that need not be there yet.
func hire(helper []string, paths ...string) (*janitor, error) {
	w, err := startWard(helper, script{Steps: []step{{
		Enter: []string{"true"}, Leave: append([]string{"rm", "-f", "--"}, paths...),
	}}})
	if err != nil {
		return nil, err
	}
	return &janitor{w}, nil
}

// dismiss ends it; what is still there stays.
func (j *janitor) dismiss() {
	if j != nil {
		_ = j.w.drop() // one that was killed has done no harm
	}
}

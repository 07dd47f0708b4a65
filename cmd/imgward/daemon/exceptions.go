// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"imgward/cmd/imgward/control"
	"imgward/guard"
)

// exceptionFile keeps exceptions for a successor, in the view's runtime directory, where only root can look.
type exceptionFile string

func (f exceptionFile) save(list []guard.Exception) error {
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return control.WriteWhole(string(f), string(text))
}

// load reads what a predecessor saved; none is no error.
func (f exceptionFile) load() (list []guard.Exception, err error) {
	text, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return list, json.Unmarshal(text, &list)
}

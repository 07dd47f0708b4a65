// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"syscall"
)

const defaultErrno = syscall.EBUSY

// errnoNames are the errors that a refusal may give. EXDEV is not among them: mv would fall back to copying and unlinking.
var errnoNames = [...]struct {
	name  string
	errno syscall.Errno
}{
	{"EBUSY", syscall.EBUSY}, {"EPERM", syscall.EPERM}, {"EACCES", syscall.EACCES}, {"EROFS", syscall.EROFS},
	{"ETXTBSY", syscall.ETXTBSY},
}

func parseErrno(name string) (syscall.Errno, error) {
	var names []string
	for _, e := range errnoNames {
		if e.name == name {
			return e.errno, nil
		}
		names = append(names, e.name)
	}
	return 0, fmt.Errorf("%q is not an error that a refusal may return: use one of %s", name, strings.Join(names, ", "))
}

func errnoName(errno syscall.Errno) string {
	for _, e := range errnoNames {
		if e.errno == errno {
			return e.name
		}
	}
	return "EBUSY"
}

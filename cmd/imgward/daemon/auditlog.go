// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"

	"imgward/guard"
	"imgward/guard/kaudit"
)

// keptAudit is a socket to the kernel's audit log, for a worker whose sandbox lets it make none.
const keptAudit = "audit"

// auditLog is the kernel's audit log, nil where there is none.
func (w *worker) auditLog(kept map[string]int) guard.AuditLog {
	fd, ok := kept[keptAudit]
	if !ok {
		var err error
		if fd, err = kaudit.Socket(); err != nil {
			if !errors.Is(err, kaudit.ErrNone) {
				w.log.Warn("nothing goes to the kernel's audit log", "error", err)
			}
			return nil
		}
	}
	return kaudit.New(fd)
}

// SPDX-License-Identifier: Apache-2.0

package guard

import "imgward/guard/procfs"

// A name that no use knows the image by, while those remain by which it is known, may be removed: rsnapshot and `cp -al`
// make such names.

// sparesNames says whether the operation takes away a name that none of the uses needs. Each of them must be known to
// have a name that still leads to the image and is another one.
func (q *question) sparesNames(uses []Use) bool {
	if q.NameOf == nil || q.Path == nil || rowOf(q.Op).holder != whileClosed {
		return false
	}
	gone := q.Path()
	for i := range uses {
		u := &uses[i]
		if u.doubt != certain || u.Problem != "" || u.Layer != "" {
			return false
		}
		path := u.Path
		if path == "" && u.PID != 0 {
			path = q.openedAs(u.PID)
		}
		if name := q.NameOf(path); name == "" || name == gone {
			return false
		}
	}
	return gone != "" && len(uses) > 0
}

// openedAs is the name by which a process has the image open; empty where it has none, or several.
func (q *question) openedAs(pid int) (path string) {
	q.procs.FS.Files(pid, q.isImage, func(o *procfs.OpenFile) bool {
		if path != "" && path != o.Path {
			path = ""
			return false
		}
		path = o.Path
		return true
	})
	return path
}

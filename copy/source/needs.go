// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/copy/backing"
	"imgward/copy/internal/sys"
	"imgward/guard"
	"imgward/guard/chain"
)

// warnOfOthers says which other files an image needs: its copy alone does not open elsewhere, or opens another file of that
// name.
func (s *Source) warnOfOthers(o *Options) {
	if o.Alone || s.Kind == Stream {
		return
	}
	path, err := Resolve(s.Name)
	if err != nil {
		return
	}
	open := func(name string) (*os.File, error) {
		if name == path { // or a snapshot of it, which may need nothing else
			return sys.Reopen(s.File, unix.O_RDONLY)
		}
		return guard.HostDirect{}.Open(name)
	}
	links, _ := chain.Read(context.Background(), open, path, "") // as far as it can be read
	var others []string
	for _, l := range links {
		others = append(others, string(l.Role)+" "+l.Path)
	}
	elsewhere := backing.Elsewhere(s.File, path)
	switch {
	case len(others) > 0:
		o.Log.Warn("this image needs other files, which are not copied with it: --chain copies them too, --flat makes one image of "+
			"all, --alone says that you mean it", "image", s.Name, "needs", strings.Join(others, ", "))
	case len(elsewhere) > 0:
		o.Log.Warn("this image needs something else, which is not copied with it; --alone says that you mean it", "image", s.Name,
			"needs", strings.Join(elsewhere, ", "))
	}
}

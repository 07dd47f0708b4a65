// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// What is given back is what the file has: not a relocated table, not what can be written to, not shared memory.
func TestUnchanged(t *testing.T) {
	const smaps = `00400000-00bc5000 r-xp 00000000 fe:00 9984 /usr/bin/imgward
Rss:                5592 kB
Anonymous:             0 kB
AnonHugePages:         0 kB
00bc5000-01445000 r--p 007c5000 fe:00 9984 /usr/bin/imgward (deleted)
Anonymous:             0 kB
01445000-01446000 r--p 01045000 fe:00 9984 /usr/bin/imgward
Anonymous:             4 kB
01446000-014ce000 rw-p 01046000 fe:00 9984 /usr/bin/imgward
Anonymous:             0 kB
1dac5c400000-1dac5cc00000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
7f4b61dff000-7f4b8c000000 r--s 00000000 00:01 3 /memfd:imgward-state (deleted)
Anonymous:             0 kB
7ffe54150000-7ffe54154000 r--p 00000000 00:00 0                          [vvar]
Anonymous:             0 kB
`
	var got []string
	eachUnchanged(strings.NewReader(smaps), func(from, to uintptr) { got = append(got, fmt.Sprintf("%x-%x", from, to)) })
	if want := []string{"400000-bc5000", "bc5000-1445000"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	trim() // and this program goes on
}

// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
)

// TestDifferences: what semantics.md says a view cannot do, natively works, and works in the way that it names.
func TestDifferences(t *testing.T) {
	v := newView(t, "")
	base := filepath.Dir(v.dir)
	disk, top := filepath.Join(base, "btrfs"), filepath.Join(base, "top")
	harness.Sh(t, `truncate -s 200M $DISK && mkfs.btrfs -q $DISK && mkdir $TOP && mount -o loop $DISK $TOP`, "DISK="+disk, "TOP="+top).OK(t)
	t.Cleanup(func() { harness.Run(t, "umount", top).OK(t) })
	dir, exposed := filepath.Join(top, "images"), filepath.Join(top, "exposed")
	harness.Sh(t, `btrfs subvolume create $DIR && chattr +C $DIR && mkdir $EXPOSED`, "DIR="+dir, "EXPOSED="+exposed).OK(t)

	snapshot := func(of, name string) harness.Result {
		return harness.Run(t, "btrfs", "subvolume", "snapshot", of, filepath.Join(top, name))
	}
	freeze := func(of string) harness.Result {
		return harness.Sh(t, `fsfreeze -f "$OF" && fsfreeze -u "$OF"`, "OF="+of)
	}
	snapshot(dir, "native").OK(t)
	freeze(dir).OK(t)

	v.run(t, "mount", "--log", v.log, "-o", "policy="+v.policy, "--expose-backing", exposed, dir)
	t.Cleanup(func() { v.run(t, "umount", dir) })
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	snapshot(dir, "view").Fails(t, "Not a Btrfs filesystem")
	freeze(dir).Fails(t, "not supported")
	harness.Sh(t, `(umask 077; truncate -s 0 $F; dd if=/dev/zero of=$F bs=1M count=2; mkswap $F) && swapon $F`,
		"F="+filepath.Join(dir, "swap")).Fails(t, "Invalid argument")
	snapshot(exposed, "snapshot").OK(t)
	freeze(exposed).OK(t)
	if _, err := os.Stat(filepath.Join(top, "snapshot", "a")); err != nil {
		t.Error(err)
	}
	if flags := harness.Run(t, "lsattr", filepath.Join(dir, "a")).OK(t); !strings.Contains(strings.Fields(flags)[0], "C") {
		t.Errorf("a new file does not inherit +C: %s", flags)
	}
}

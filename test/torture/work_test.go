// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"testing"
	"time"

	"imgward/test/harness"
)

// work is what an administrator may do on a host; every command must end as it does without kills.
var work = []struct{ name, script string }{
	{"hot-plug", `virsh -q attach-disk vm "$DIR/second.img" vdb --live
		until virsh -q detach-disk vm vdb --live 2>/dev/null; do sleep 0.1; done
		while virsh -q domblklist vm | grep -q vdb; do sleep 0.1; done`},
	{"snapshot, commit", `virsh -q snapshot-create-as vm over --disk-only --no-metadata --diskspec "vda,file=$DIR/over.qcow2"
		virsh -q blockcommit vm vda --active --wait --pivot --delete`},
	{"blockcopy", `virsh -q blockcopy vm vda "$DIR/mirror.qcow2" --wait --transient-job >/dev/null
		virsh -q blockjob vm vda --abort; rm "$DIR/mirror.qcow2"`},
	{"convert, compare", `qemu-img convert -O qcow2 "$DIR/idle.img" "$DIR/idle.qcow2"
		qemu-img compare -q "$DIR/idle.img" "$DIR/idle.qcow2"; rm "$DIR/idle.qcow2"`},
	{"cp, cmp", `cp "$DIR/idle.img" "$DIR/copy.img"; cmp "$DIR/idle.img" "$DIR/copy.img"; rm "$DIR/copy.img"`},
	{"tar, find, diff, rm -r", `mkdir "$DIR/tree"; tar -C "$DIR/tree" -xf "$OUT/tree.tar"
		test "$(find "$DIR/tree" -type f | wc -l)" = 500; diff -r "$OUT/tree" "$DIR/tree"; rm -r "$DIR/tree"`},
	{"mkdir, ln, mv, rmdir", `mkdir "$DIR/d"; echo x >"$DIR/d/a"; ln "$DIR/d/a" "$DIR/d/b"; ln -s a "$DIR/d/c"
		mv "$DIR/d/b" "$DIR/d/e"; test "$(cat "$DIR/d/c" "$DIR/d/e")" = "x
x"; rm "$DIR/d/a" "$DIR/d/c" "$DIR/d/e"; rmdir "$DIR/d"`},
	{"append, truncate, fallocate", `for i in 1 2 3; do echo line >>"$DIR/log"; done; test "$(wc -l <"$DIR/log")" = 3
		truncate -s 1M "$DIR/log"; fallocate -p -o 0 -l 64k "$DIR/log"; test "$(stat -c %s "$DIR/log")" = 1048576
		rm "$DIR/log"`},
}

// TestWork does all of it beside a writing guest, over and over.
func TestWork(t *testing.T) {
	both(t, func(t *testing.T, opts ...string) {
		h := harness.New(t)
		v := h.Mount(t, opts...)
		disk := harness.Disk{Target: "vda", File: h.Qcow2(t, "vm.qcow2", 64*harness.MiB), Format: "qcow2"}
		h.Raw(t, "second.img", 8*harness.MiB)
		h.Raw(t, "idle.img", 32*harness.MiB)
		env := []string{"DIR=" + h.Images, "OUT=" + h.Out}
		harness.Sh(t, `mkdir "$OUT/tree"; for i in $(seq 500); do echo "$i" >"$OUT/tree/file$i"; done
			tar -C "$OUT/tree" -cf "$OUT/tree.tar" .`, env...).OK(t)
		g := h.Boot(t, "vm", disk)
		g.StartWriting(t, "vda")
		whileKilling(t, v, func() {
			for end := time.Now().Add(*torture); ; {
				for _, w := range work {
					if r := harness.Sh(t, "set -e\n"+w.script, env...); r.Exit != 0 {
						t.Fatalf("%s: exit %d\n%s%s", w.name, r.Exit, r.Stdout, r.Stderr)
					}
				}
				if time.Now().After(end) {
					return
				}
			}
		})
		unharmed(t, h, g, []harness.Disk{disk})
		for _, r := range v.Refusals(t, time.Time{}) {
			t.Errorf("hindered: %+v", r)
		}
	})
}

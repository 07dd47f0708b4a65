package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"imgward/guard"
)

const table = `
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 8:2 / /var/lib/images rw - xfs /dev/sdb1 rw
22 21 0:50 / /var/lib/images rw - fuse.imgward /var/lib/images rw
23 20 8:2 / /mnt/all rw - xfs /dev/sdb1 rw
24 20 8:2 /lab /srv/lab rw - xfs /dev/sdb1 rw
25 20 8:2 / /mnt/covered rw - xfs /dev/sdb1 rw
26 25 0:60 / /mnt/covered rw - tmpfs none rw
27 20 8:3 / /other rw - xfs /dev/sdc1 rw
`

func TestOtherWays(t *testing.T) {
	mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(strings.TrimPrefix(table, "\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := otherWays(mounts, View{Mountpoint: "/var/lib/images", Backing: "/var/lib/images"})
	if want := []string{"/mnt/all", "/srv/lab"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// A directory of the root file system, which has no other mount.
	if got := otherWays(mounts, View{Mountpoint: "/srv/x", Backing: "/srv/x"}); got != nil {
		t.Errorf("got %q", got)
	}
}

func TestImage(t *testing.T) {
	h := &Host{Views: []View{{Mountpoint: "/img", Backing: "/img"}}}
	file := guard.ID{Dev: 1, Ino: 2}
	for _, c := range []struct {
		id   guard.ID
		use  guard.Use
		want Level
	}{
		{file, guard.Use{Path: "/img/a", Evidence: guard.EvidenceLibvirt}, ""},
		{file, guard.Use{Path: "/image/a", Evidence: guard.EvidenceLibvirt}, Problem},
		{file, guard.Use{Path: "/img/a", Evidence: guard.EvidenceProcess}, Note},
		{guard.ID{Dev: guard.BlockDevice, Ino: 3}, guard.Use{Path: "/dev/sdz"}, Note},
		{guard.ID{}, guard.Use{Domain: "x"}, Problem},
	} {
		f := h.image(c.id, []guard.Use{c.use})
		if (f == nil) != (c.want == "") || f != nil && f.Level != c.want {
			t.Errorf("%+v: %+v, want %q", c.use, f, c.want)
		}
	}
}

func TestExported(t *testing.T) {
	file := filepath.Join(t.TempDir(), "exports")
	text := "# none\n/srv/a\\040b host(rw)\n\"/srv/c d\" *(ro)\n\n/plain/\t10.0.0.0/8(rw)\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, want := exported(f), []string{"/srv/a b", "/srv/c d", "/plain"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

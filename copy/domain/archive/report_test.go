// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"os"
	"testing"

	"imgward/copy/digest"
)

func digestOf(b []byte) string {
	t := digest.New(digest.BLAKE3, int64(len(b)))
	if len(b) > 0 {
		t.Data(0, b)
	}
	return t.Root().String()
}

func readDigest(_ context.Context, path string) (string, int64, error) {
	b, err := os.ReadFile(path)
	return digestOf(b), int64(len(b)), err
}

// TestReport: what is not there, or not what was copied, is said, however the manifest calls it.
func TestReport(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(m *Manifest)
		harm     func(a *Archive) error
		plain    Condition
		examined Condition
	}{
		"whole":     {plain: IsWhole, examined: IsVerified},
		"verified":  {change: func(m *Manifest) { m.Files[1].State = Verified }, plain: IsVerified, examined: IsVerified},
		"pending":   {change: func(m *Manifest) { m.Files[1].State = Pending }, plain: IsPending, examined: IsPending},
		"failed":    {change: func(m *Manifest) { m.Files[1].State = Failed }, plain: IsFailed, examined: IsFailed},
		"an error":  {change: func(m *Manifest) { m.Error = "no space" }, plain: IsFailed, examined: IsFailed},
		"gone":      {harm: func(a *Archive) error { return os.Remove(a.Path("disks/a.img")) }, plain: IsFailed, examined: IsFailed},
		"shorter":   {harm: func(a *Archive) error { return os.Truncate(a.Path("disks/a.img"), 3) }, plain: IsFailed, examined: IsFailed},
		"a link":    {harm: func(a *Archive) error { return relink(a.Path("disks/a.img")) }, plain: IsFailed, examined: IsFailed},
		"a bit":     {harm: func(a *Archive) error { return os.WriteFile(a.Path("disks/a.img"), []byte("dath"), 0o600) }, plain: IsWhole, examined: IsFailed},
		"unwritten": {harm: func(a *Archive) error { return os.WriteFile(a.Path(Name), []byte("{"), 0o600) }, plain: IsFailed, examined: IsFailed},
	} {
		t.Run(name, func(t *testing.T) {
			a := reported(t, c.change)
			if c.harm != nil {
				if err := c.harm(a); err != nil {
					t.Fatal(err)
				}
			}
			for digest, want := range map[bool]Condition{false: c.plain, true: c.examined} {
				read := Digest(readDigest)
				if !digest {
					read = nil
				}
				r, err := Examine(context.Background(), a.Dir, read)
				if err != nil || r.Condition != want {
					t.Errorf("digests: %v: %q, want %q (%v)", digest, r.Condition, want, err)
				}
				if bad := want == IsFailed && len(r.Problems) == 0 && r.Error == ""; bad {
					t.Error("it does not say why")
				}
			}
		})
	}
}

// reported is a copy of one disk.
func reported(t *testing.T, change func(*Manifest)) *Archive {
	t.Helper()
	a, err := Create(t.TempDir(), "vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	files := map[string]string{LiveXML: "<domain/>", "disks/a.img": "data"}
	for name, text := range files {
		if err := a.WriteFile(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	err = a.Update(func(m *Manifest) {
		*m = valid()
		m.Finished = m.Begun.AddDate(1, 0, 0)
		m.Files = []File{
			{Path: LiveXML, Kind: XML, State: Copied, Size: 9, BLAKE3: digestOf([]byte(files[LiveXML]))},
			{Path: "disks/a.img", Kind: Disk, State: Copied, Size: 4, BLAKE3: digestOf([]byte("data"))},
		}
		if change != nil {
			change(m)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// relink puts a link in the place of a file, to a file with the same contents elsewhere.
func relink(path string) error {
	other := path + "-of-others"
	if err := os.Rename(path, other); err != nil {
		return err
	}
	return os.Symlink("/proc/self/exe", path)
}

// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"imgward/copy/digest"
)

// sample is the manifest of an image of three blocks, the first two alike.
func sample(t testing.TB) (Manifest, []byte) {
	t.Helper()
	const size = 2*digest.Block + 10
	tree := digest.New(digest.BLAKE3, size)
	tree.Hole(0, 2*digest.Block)
	tree.Data(2*digest.Block, []byte("0123456789"))
	m := New("vm1.img", tree)
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	return m, b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	m, b := sample(t)
	got, err := Parse(bytes.NewReader(b), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Errorf("read %+v, written %+v", got, m)
	}
	if n := bytes.Count(b, []byte("\n")); n != 4 {
		t.Errorf("%d lines, want 4: equal neighbours share one:\n%s", n, b)
	}
	if !bytes.HasPrefix(b, []byte(Magic)) {
		t.Errorf("begins with %.30q, not with Magic", b)
	}
}

func TestDamageIsNoticed(t *testing.T) {
	_, b := sample(t)
	lines := strings.SplitAfter(string(b), "\n")
	for name, text := range map[string]string{
		"empty":           "",
		"cut off":         strings.Join(lines[:3], ""),
		"a block missing": lines[0] + lines[1] + lines[3],
		"a digit changed": strings.Replace(string(b), `"sum":"`, `"sum":"0`, 1),
		"not JSON":        "vm1.img\n",
		"other version":   strings.Replace(string(b), `"version":1`, `"version":2`, 1),
		"other algorithm": strings.Replace(string(b), "blake3-256", "md5", 1),
		"too many blocks": strings.Replace(string(b), `"count":2`, `"count":4000000000`, 1),
		"another size":    strings.Replace(string(b), `"size":134217738`, `"size":1342177`, 1),
	} {
		if text == string(b) {
			t.Fatalf("%s: the test changed nothing", name)
		}
		if _, err := Parse(strings.NewReader(text), nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestUnknownLinesAreSkipped(t *testing.T) {
	m, b := sample(t)
	lines := strings.SplitAfter(string(b), "\n")
	text := lines[0] + `{"type":"note","text":"later versions"}` + "\n" + strings.Join(lines[1:], "")
	got, err := Parse(strings.NewReader(text), nil)
	if err != nil || got.Root != m.Root {
		t.Errorf("got root %s, error %v", got.Root, err)
	}
}

func FuzzParse(f *testing.F) {
	_, b := sample(f)
	f.Add(b)
	f.Add([]byte(`{"type":"manifest","version":1,"size":9,"algorithm":"xxh3-128","leaf":1048576,"block":67108864}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(bytes.NewReader(b), nil)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := m.Write(&again); err != nil {
			t.Fatal(err)
		}
		if n, err := Parse(&again, nil); err != nil || n.Root != m.Root || n.Size != m.Size {
			t.Fatalf("what was parsed cannot be written and parsed again: %v", err)
		}
	})
}

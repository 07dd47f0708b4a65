// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// images makes a chain of two overlays on one base, and a raw image whose content looks like an overlay on a secret.
func images(t *testing.T) []*Image {
	t.Helper()
	dir := t.TempDir()
	var list []*Image
	make := func(name, base string, users ...string) {
		path := filepath.Join(dir, name)
		args := []string{"create", "-q", "-f", "qcow2", path, "1M"}
		if base != "" {
			args = []string{"create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path}
		}
		if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img: %v: %s", err, out)
		}
		list = append(list, &Image{Path: path, Users: users})
	}
	make("base", "")
	make("a", "base", "vda of a")
	make("b<&>\"\n", "base", "vda of b</text>")
	make("secret", "")
	make("guest", "secret", "vda of guest")
	list = append(list[:3], list[4]) // no evidence names the secret
	Link(context.Background(), list)
	return list
}

func TestTree(t *testing.T) {
	list := images(t)
	var b bytes.Buffer
	if err := Tree(&b, list, func(s string) string { return strings.Trim(strconv.Quote(filepath.Base(s)), `"`) }); err != nil {
		t.Fatal(err)
	}
	want := "a  <- vda of a\n`- base\n" + `b<&>\"\n  <- text>` + "\n`- base\nguest  <- vda of guest\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// A base that many share is described once, and named for each.
func TestTreeOfSharedBase(t *testing.T) {
	const vms = 100
	lowest := &Image{Path: "lowest", Users: []string{"lowest of all"}}
	base := &Image{Path: "base", Below: []*Image{lowest}}
	list := []*Image{base, lowest}
	for i := range vms {
		vm := "vm" + strconv.Itoa(i)
		base.Users = append(base.Users, "base of "+vm)
		list = append(list, &Image{Path: vm, Users: []string{"vda of " + vm}, Below: []*Image{base}})
	}
	base.Above, lowest.Above = true, true
	var b bytes.Buffer
	if err := Tree(&b, list, strings.TrimSpace); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	if n := strings.Count(s, " of "); n != 2*vms+1 {
		t.Errorf("%d users are named, want %d", n, 2*vms+1)
	}
	if n := strings.Count(s, "`- base"); n != vms || strings.Count(s, "`- base  (see above)\n") != vms-1 {
		t.Errorf("base stands below %d of %d:\n%s", n, vms, s[:500])
	}
}

func TestSVG(t *testing.T) {
	var b bytes.Buffer
	if err := SVG(&b, images(t)); err != nil {
		t.Fatal(err)
	}
	elements := map[string]int{}
	d := xml.NewDecoder(&b)
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok {
			elements[e.Name.Local]++
			for _, a := range e.Attr {
				if a.Name.Local == "href" || a.Name.Local == "src" {
					t.Errorf("it needs %s", a.Value)
				}
			}
		}
	}
	if elements["rect"] != 4 || elements["path"] != 2+1 {
		t.Errorf("%v", elements)
	}
}

func TestDOT(t *testing.T) {
	var b bytes.Buffer
	if err := DOT(&b, images(t)); err != nil {
		t.Fatal(err)
	}
	if s := b.String(); strings.Count(s, "->") != 3+2 || !strings.Contains(s, `\"\n"];`) {
		t.Errorf("%s", s)
	}
}

// Headers that go round in a circle end somewhere.
func TestLoop(t *testing.T) {
	a, b := &Image{Path: "a", Above: true}, &Image{Path: "b", Above: true}
	a.Below, b.Below = []*Image{b}, []*Image{a}
	var out bytes.Buffer
	if err := Tree(&out, []*Image{a, b}, strings.ToUpper); err != nil || out.String() != "A\n`- B\n   `- A  (see above)\n" {
		t.Errorf("%v %q", err, out.String())
	}
	if err := SVG(&out, []*Image{a, b}); err != nil {
		t.Error(err)
	}
}

// TestEdges: no edge runs behind a box, whatever stands on what.
func TestEdges(t *testing.T) {
	img := func(name string, below ...*Image) *Image {
		for _, b := range below {
			b.Above = true
		}
		return &Image{Path: "/images/" + name, Users: []string{"vda of " + name, "another"}[:1+len(name)%2], Below: below}
	}
	base, data := img("base"), img("data.raw")
	middle, other := img("middle", base), img("other", base, data)
	list := []*Image{base, data, middle, other}
	for i := range 4 {
		list = append(list, img("top"+strconv.Itoa(i), middle), img("direct"+strconv.Itoa(i), base, other), img("far"+strconv.Itoa(i), middle, data, base))
	}
	boxes, _, height := layout(list)
	if len(boxes) != len(list) {
		t.Fatalf("%d boxes of %d images", len(boxes), len(list))
	}
	at := map[*Image]*box{}
	for i, b := range boxes {
		at[b.img] = b
		for _, c := range boxes[:i] {
			if b.x < c.x+c.w && c.x < b.x+b.w && b.y < c.y+c.h && c.y < b.y+b.h {
				t.Errorf("%s lies on %s", b.img.Path, c.img.Path)
			}
		}
	}
	step := regexp.MustCompile(`([MHV])([\d.]+)(?:,([\d.]+))?`)
	for _, b := range boxes {
		for _, below := range b.img.Below {
			var x, y float64
			way := edge(b, at[below])
			for _, m := range step.FindAllStringSubmatch(way, -1) {
				fromX, fromY := x, y
				v, _ := strconv.ParseFloat(m[2], 64)
				switch m[1] {
				case "M":
					x = v
					y, _ = strconv.ParseFloat(m[3], 64)
					continue
				case "H":
					x = v
				case "V":
					y = v
				}
				for _, c := range boxes {
					// A pixel of grace, for numbers are rounded.
					if max(x, fromX) > c.x+1 && min(x, fromX) < c.x+c.w-1 && max(y, fromY) > c.y+1 && min(y, fromY) < c.y+c.h-1 {
						t.Errorf("%s to %s (%s) runs behind %s", b.img.Path, below.Path, way, c.img.Path)
					}
				}
			}
			if y > height {
				t.Errorf("%s leaves the drawing", way)
			}
		}
	}
	if dir := os.Getenv("IMGWARD_TEST_PICTURE"); dir != "" { // to be looked at
		f, err := os.Create(filepath.Join(dir, "graph.svg"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := SVG(f, list); err != nil {
			t.Fatal(err)
		}
	}
}

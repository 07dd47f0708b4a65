package graph

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"os/exec"
	"path/filepath"
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
	if err := Tree(&out, []*Image{a, b}, strings.ToUpper); err != nil || out.String() != "A\n`- B\n   `- A\n" {
		t.Errorf("%v %q", err, out.String())
	}
	if err := SVG(&out, []*Image{a, b}); err != nil {
		t.Error(err)
	}
}

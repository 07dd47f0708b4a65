// SPDX-License-Identifier: Apache-2.0

// Package xmledit changes parts of libvirt's XML; everything else stays letter for letter.
package xmledit

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Editor says what becomes of a text.
type Editor struct {
	// Start is asked about each element, with the names of those around it and its own; at is where its text begins. It may
	// change the attributes.
	Start func(path []string, t *xml.StartElement, at string) (What, error)
	// Text is asked about what stands in an element; nil: it stays.
	Text func(path []string, s string) (string, error)
}

// What becomes of an element.
type What int

// The answers of Editor.Start.
const (
	Keep What = iota
	Changed
	Drop // with all in it
)

// Edit returns the text as it is to be.
func (e *Editor) Edit(text string) (string, error) {
	var out bytes.Buffer
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict = true
	var path []string
	skip := 0 // the depth of an element that is dropped
	for {
		at := d.InputOffset()
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return out.String(), nil
		}
		if err != nil {
			return "", fmt.Errorf("read libvirt's XML: %w", err)
		}
		raw := text[at:d.InputOffset()]
		switch t := token.(type) {
		case xml.StartElement:
			path = append(path, t.Name.Local)
			if skip > 0 {
				break
			}
			w, err := e.Start(path, &t, text[at:])
			if err != nil {
				return "", err
			}
			switch w {
			case Drop:
				skip = len(path)
			case Changed:
				raw = tag(t, strings.HasSuffix(raw, "/>"))
			}
		case xml.CharData:
			if skip > 0 || len(path) == 0 || e.Text == nil {
				break
			}
			was := strings.TrimSpace(string(t))
			if was == "" {
				break
			}
			now, err := e.Text(path, was)
			if err != nil {
				return "", err
			}
			if now != was {
				var b bytes.Buffer
				_ = xml.EscapeText(&b, []byte(now)) // a Buffer takes everything
				raw = b.String()
			}
		case xml.EndElement:
			if len(path) == 0 {
				return "", errors.New("read libvirt's XML: an element ends that has not begun")
			}
			dropped := skip == len(path)
			path = path[:len(path)-1]
			if dropped {
				skip = 0
				continue
			}
		}
		if skip == 0 {
			out.WriteString(raw)
		}
	}
}

// tag is a start tag, or one that is the end as well. A decoder makes a start and an end of the latter, and the end has no text.
func tag(t xml.StartElement, ends bool) string {
	var b bytes.Buffer
	b.WriteString("<" + full(t.Name))
	for _, a := range t.Attr {
		b.WriteString(" " + full(a.Name) + `="`)
		_ = xml.EscapeText(&b, []byte(a.Value))
		b.WriteString(`"`)
	}
	if ends {
		b.WriteString("/")
	}
	b.WriteString(">")
	return b.String()
}

func full(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}

// Attr is an attribute's value; "" if it has none.
func Attr(t *xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// Set changes an attribute, gives it another name, or adds it.
func Set(t *xml.StartElement, was, name, value string) {
	for i, a := range t.Attr {
		if a.Name.Local == was {
			t.Attr[i] = xml.Attr{Name: xml.Name{Space: a.Name.Space, Local: name}, Value: value}
			return
		}
	}
	t.Attr = append(t.Attr, xml.Attr{Name: xml.Name{Local: name}, Value: value})
}

// Unset removes an attribute.
func Unset(t *xml.StartElement, name string) {
	kept := t.Attr[:0]
	for _, a := range t.Attr {
		if a.Name.Local != name {
			kept = append(kept, a)
		}
	}
	t.Attr = kept
}

// Ends says whether a path ends with these names.
func Ends(path []string, names ...string) bool {
	return len(path) >= len(names) && slices.Equal(path[len(path)-len(names):], names)
}

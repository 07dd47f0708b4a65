// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// withoutOverlay gives the disk of an overlay its own image again, in the XML of a domain: the <source> names the image,
// the <driver> its format, and the <backingStore>, which libvirt filled in for the overlay, goes. Everything else stays
// letter for letter. A disk that is not on its overlay stays as it is.
func withoutOverlay(text string, o *overlay) (string, error) {
	var out bytes.Buffer
	d := xml.NewDecoder(bytes.NewReader([]byte(text)))
	path := []string{}
	copied := int64(0) // text before is in out
	start := int64(-1) // of the <disk> under way
	for {
		at := d.InputOffset()
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("read the domain's XML: %w", err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			path = append(path, t.Name.Local)
			if len(path) == 3 && path[1] == "devices" && path[2] == "disk" {
				start = at
			}
		case xml.EndElement:
			if len(path) == 3 && start >= 0 {
				end := d.InputOffset()
				edited, err := diskWithoutOverlay(text[start:end], o)
				if err != nil {
					return "", err
				}
				out.WriteString(text[copied:start])
				out.WriteString(edited)
				copied, start = end, -1
			}
			path = path[:len(path)-1]
		}
	}
	out.WriteString(text[copied:])
	return out.String(), nil
}

// diskWithoutOverlay edits one <disk>.
func diskWithoutOverlay(text string, o *overlay) (string, error) {
	var is disk
	if err := xml.Unmarshal([]byte(text), &is); err != nil {
		return "", err
	}
	if is.Target.Dev != o.Target || is.Source.File != o.File {
		return text, nil
	}
	var out bytes.Buffer
	d := xml.NewDecoder(bytes.NewReader([]byte(text)))
	depth, skip := 0, 0 // skip: the depth of an element that is left out, with all in it
	for {
		at := d.InputOffset()
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return out.String(), nil
		}
		if err != nil {
			return "", err
		}
		raw := text[at:d.InputOffset()]
		switch t := token.(type) {
		case xml.StartElement:
			depth++
			switch {
			case skip > 0:
			case depth == 2 && t.Name.Local == "backingStore":
				skip = depth
			case depth == 1:
				raw = element(t, raw, "type", kindOf(o.Image))
			case depth == 2 && t.Name.Local == "driver":
				raw = element(t, raw, "type", o.Format)
			case depth == 2 && t.Name.Local == "source":
				raw = sourceElement(t, raw, o.Image)
			}
		case xml.EndElement:
			depth--
			if skip > depth {
				skip = 0
				continue
			}
		}
		if skip == 0 {
			out.WriteString(raw)
		}
	}
}

// element is a start tag with one attribute changed; raw is how it was. Of <x/> the decoder makes a start and an end, and the
// end has no text.
func element(t xml.StartElement, raw, name, value string) string {
	var b bytes.Buffer
	b.WriteString("<" + t.Name.Local)
	for _, a := range t.Attr {
		v := a.Value
		if a.Name.Local == name {
			v = value
		}
		attr := a.Name.Local
		if a.Name.Space != "" {
			attr = a.Name.Space + ":" + attr
		}
		b.WriteString(" " + attr + `="`)
		_ = xml.EscapeText(&b, []byte(v)) // a Buffer takes everything
		b.WriteString(`"`)
	}
	if strings.HasSuffix(raw, "/>") {
		b.WriteString("/")
	}
	b.WriteString(">")
	return b.String()
}

// sourceElement is a <source> that names another image.
func sourceElement(t xml.StartElement, raw, image string) string {
	for i, a := range t.Attr {
		if a.Name.Local != "file" {
			continue
		}
		if kindOf(image) == "block" {
			t.Attr[i].Name.Local = "dev"
		}
		return element(t, raw, t.Attr[i].Name.Local, image)
	}
	return raw
}

// kindOf is the type attribute of a <disk> with this image.
func kindOf(image string) string {
	if st, err := os.Stat(image); err == nil && st.Mode()&os.ModeDevice != 0 {
		return "block"
	}
	return "file"
}

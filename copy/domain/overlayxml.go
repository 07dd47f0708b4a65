// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"encoding/xml"
	"fmt"
	"os"
	"strings"

	"imgward/copy/domain/xmledit"
)

// withoutOverlay gives the disk of an overlay its own image again, in the XML of a domain: the <source> names the image,
// the <driver> its format, and the <backingStore>, which libvirt filled in for the overlay, goes. Everything else stays
// letter for letter. A disk that is not on its overlay stays as it is.
func withoutOverlay(text string, o *overlay) (string, error) {
	kind, name := "file", "file" // of <disk>, and of the attribute of its <source> that names the image
	if isDevice(o.Image) {
		kind, name = "block", "dev"
	}
	on := false // the disk under way is on the overlay
	e := xmledit.Editor{Start: func(path []string, t *xml.StartElement, at string) (xmledit.What, error) {
		switch {
		case len(path) < 3 || path[1] != "devices" || path[2] != "disk":
			return xmledit.Keep, nil
		case len(path) == 3:
			var is disk
			if err := xml.NewDecoder(strings.NewReader(at)).Decode(&is); err != nil {
				return xmledit.Keep, fmt.Errorf("read a disk's XML: %w", err)
			}
			if on = is.Target.Dev == o.Target && is.Source.File == o.File; !on {
				return xmledit.Keep, nil
			}
			xmledit.Set(t, "type", "type", kind)
		case !on || len(path) > 4:
			return xmledit.Keep, nil
		case path[3] == "backingStore":
			return xmledit.Drop, nil
		case path[3] == "driver" && xmledit.Attr(t, "type") != "":
			xmledit.Set(t, "type", "type", o.Format)
		case path[3] == "source":
			xmledit.Set(t, "file", name, o.Image)
		default:
			return xmledit.Keep, nil
		}
		return xmledit.Changed, nil
	}}
	return e.Edit(text)
}

func isDevice(image string) bool {
	st, err := os.Stat(image)
	return err == nil && st.Mode()&os.ModeDevice != 0
}

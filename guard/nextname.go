// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"path"
	"strings"
)

// nextName counts up the last number in a name, its extension apart: "vm-disk2.img" becomes "vm-disk3.img", "a09.raw"
// "a10.raw". A name without a number gets one: "vm.img" becomes "vm-2.img".
func nextName(name string) string {
	stem, ext := name, path.Ext(name)
	if ext == name || isNumber(strings.TrimPrefix(ext, ".")) { // ".img"; "disk.1"
		ext = ""
	}
	stem = strings.TrimSuffix(stem, ext)
	end := strings.LastIndexAny(stem, digits) + 1
	if end == 0 {
		return stem + "-2" + ext
	}
	begin := end
	for begin > 0 && strings.IndexByte(digits, stem[begin-1]) >= 0 {
		begin--
	}
	return stem[:begin] + increment(stem[begin:end]) + stem[end:] + ext
}

const digits = "0123456789"

func isNumber(s string) bool { return s != "" && strings.Trim(s, digits) == "" }

// increment adds one to a decimal number of any length, and keeps its leading zeroes.
func increment(number string) string {
	d := []byte(number)
	for i := len(d) - 1; i >= 0; i-- {
		if d[i] != '9' {
			d[i]++
			return string(d)
		}
		d[i] = '0'
	}
	return "1" + string(d)
}

// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"embed"
	"path"
	"strings"
	"testing"

	"imgward/test/conformance/script"
)

//go:embed cases/*.txt
var caseFiles embed.FS

// TestCases runs all of cases/ on each target.
func TestCases(t *testing.T) {
	atPlaces(t, func(t *testing.T, p *place) {
		r := newRunner(t, p)
		for _, file := range listCases(t) {
			t.Run(strings.TrimSuffix(path.Base(file), ".txt"), func(t *testing.T) { r.runFile(t, file) })
		}
		t.Logf("%s: %d checks in %d variants of %d cases", p.name, r.checks, r.variants, r.cases)
	})
}

func listCases(t *testing.T) []string {
	entries, err := caseFiles.ReadDir("cases")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		files = append(files, "cases/"+e.Name())
	}
	return files
}

func (r *runner) runFile(t *testing.T, file string) {
	f, err := caseFiles.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cases, err := script.Parse(file, f)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if reason := r.lacking(c.Needs); reason != "" {
			t.Logf("not here: %s: %s", c.Name, reason)
			continue
		}
		t.Run(c.Name, func(t *testing.T) { r.runCase(t, c) })
	}
}

func (r *runner) runCase(t *testing.T, c *script.Case) {
	variants, err := c.Variants(map[string]string{"fs": r.place.fstype, "place": r.place.kind(), "data": r.place.data()})
	if err != nil {
		t.Fatal(err)
	}
	r.cases++
	for _, v := range variants {
		r.variants++
		r.runVariant(t, v)
	}
}

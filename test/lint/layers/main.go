// SPDX-License-Identifier: Apache-2.0

// Command layers checks that packages import only what the design allows: layers point one way, and every heavy import
// lives in one place. It prints each breach with the reason for the rule and exits 1.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
)

// pkg is the part of `go list -json` that the rules look at.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func main() {
	packages, err := list()
	if err != nil {
		fmt.Fprintln(os.Stderr, "layers:", err)
		os.Exit(1)
	}
	breaches := check(packages)
	for _, b := range breaches {
		fmt.Fprintln(os.Stderr, "layers:", b)
	}
	if len(breaches) > 0 {
		os.Exit(1)
	}
}

func list() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	packages, err := decode(out)
	return packages, errors.Join(err, cmd.Wait())
}

func decode(r io.Reader) ([]pkg, error) {
	var packages []pkg
	dec := json.NewDecoder(r)
	for {
		var p pkg
		err := dec.Decode(&p)
		if err == io.EOF {
			return packages, nil
		}
		if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		packages = append(packages, p)
	}
}

func check(packages []pkg) []string {
	var breaches []string
	for _, p := range packages {
		imports := append([]string(nil), p.Imports...)
		if !strings.HasPrefix(p.ImportPath, "imgward/test/") {
			imports = append(imports, own(p.TestImports)...)
			imports = append(imports, own(p.XTestImports)...)
		}
		for _, imp := range imports {
			for _, r := range rules {
				if within(imp, r.imported) && !r.mayImport(p.ImportPath) {
					breaches = append(breaches, fmt.Sprintf("%s imports %s: %s", p.ImportPath, imp, r.reason))
				}
			}
		}
	}
	sort.Strings(breaches)
	return breaches
}

// own keeps the imports of this module: a test may use any library, but may not turn a layer upside down. What says what a
// test needs of the machine, and what isolates it, has no layer.
func own(imports []string) []string {
	var kept []string
	for _, i := range imports {
		if within(i, "imgward") && !within(i, "imgward/test/need") && !within(i, "imgward/test/isolate") {
			kept = append(kept, i)
		}
	}
	return kept
}

// within reports whether path is prefix or a package below it.
func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

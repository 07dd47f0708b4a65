// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"imgward/test/need"
)

// moduleFiles are the files of modules of the stock kernel, each after those that it depends on. What is built into the
// kernel has none, and needs none. (The package has no modules.dep: depmod makes it where a kernel is installed.)
func moduleFiles(names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	root := need.Cache() + "/stock/modules"
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			files[underscores(name)] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var order []string
	added, err := builtIn(root)
	if err != nil {
		return nil, err
	}
	var add func(name string, asked bool) error
	add = func(name string, asked bool) error {
		name = underscores(name)
		file := files[name]
		if file == "" && !added[name] {
			name = algorithm(name)
			file = files[name]
		}
		switch {
		case added[name] || file == "" && !asked:
			return nil
		case file == "":
			return fmt.Errorf("the stock kernel has no module %s below %s", name, root)
		}
		added[name] = true
		deps, err := dependencies(file)
		if err != nil {
			return err
		}
		for _, dep := range deps {
			if err := add(dep, false); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, name := range names {
		if err := add(name, true); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// builtIn are those that the kernel has without loading them.
func builtIn(root string) (map[string]bool, error) {
	list, err := os.ReadFile(filepath.Join(root, "modules.builtin"))
	found := map[string]bool{}
	for path := range strings.Lines(string(list)) {
		found[underscores(strings.TrimSuffix(filepath.Base(strings.TrimSpace(path)), ".ko"))] = true
	}
	return found, err
}

// algorithm is the module that does what others want by an alias: crypto-crc32c, xxhash64, blake2b-256.
func algorithm(alias string) string {
	name := strings.TrimSuffix(strings.TrimPrefix(alias, "crypto_"), "_256")
	return strings.TrimSuffix(name, "64") + "_generic"
}

// underscores is how the kernel names a module.
func underscores(name string) string { return strings.ReplaceAll(name, "-", "_") }

// dependencies reads what a module wants to be loaded before it (modinfo's "depends" and "softdep: pre").
func dependencies(module string) ([]string, error) {
	f, err := elf.Open(module)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", module, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s has no .modinfo", module)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", module, err)
	}
	var all []string
	for _, field := range bytes.Split(info, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		if key == "depends" && value != "" {
			all = append(all, strings.Split(value, ",")...)
		}
		if pre, ok := strings.CutPrefix(value, "pre: "); key == "softdep" && ok {
			before, _, _ := strings.Cut(pre, "post:")
			all = append(all, strings.Fields(before)...)
		}
	}
	return all, nil
}

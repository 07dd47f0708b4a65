// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"syscall"
)

// dirOps read directories and run programs.
var dirOps = map[string]operation{
	"ls": func(c *call) (string, error) {
		entries, err := os.ReadDir(c.str())
		if err != nil {
			return "", err
		}
		if len(entries) == 0 {
			return "empty", nil
		}
		var out []string
		for _, e := range entries {
			out = append(out, e.Name())
		}
		sort.Strings(out)
		return strings.Join(out, " "), nil
	},
	"count": func(c *call) (string, error) {
		entries, err := os.ReadDir(c.str())
		return fmt.Sprint(len(entries)), err
	},
	// exec runs a program to its end and prints its exit status; the errno is that of execve.
	"exec": func(c *call) (string, error) {
		path := c.str()
		if !strings.Contains(path, "/") {
			path = "./" + path
		}
		err := exec.Command(path, c.rest()...).Run()
		var status *exec.ExitError
		if errors.As(err, &status) {
			return fmt.Sprintf("exit %d", status.ExitCode()), nil
		}
		return "", errnoOf(err)
	},
	// output runs a program and prints its first line.
	"output": func(c *call) (string, error) {
		out, err := exec.Command("./"+c.str(), c.rest()...).Output()
		line, _, _ := strings.Cut(string(out), "\n")
		return line, errnoOf(err)
	},
	// spawn starts a program that runs until "killchild" or the end of the case.
	"spawn": func(c *call) (string, error) {
		cmd := exec.Command("./"+c.str(), c.rest()...)
		if err := cmd.Start(); err != nil {
			return "", errnoOf(err)
		}
		c.children = append(c.children, cmd)
		return "", nil
	},
	"killchild": func(c *call) (string, error) { c.killChildren(); return "", nil },
	"copy":      func(c *call) (string, error) { return "", copyFile(c.str(), c.str()) },
}

// killChildren ends what spawn started.
func (p *process) killChildren() {
	for _, cmd := range p.children {
		cmd.Process.Kill()
		cmd.Wait()
	}
	p.children = nil
}

func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// copyFile copies a program into the file system under test.
func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

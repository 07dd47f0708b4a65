// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"os"
	"strings"
	"sync"

	"imgward/fs/keeper"
	"imgward/guard/policy"
)

// keptFiles remembers what the keeper was given, for the next one should it die.
type keptFiles struct {
	*keeper.Client
	mu  sync.Mutex
	fds map[string]int
}

// Keep implements second.Keeper.
func (k *keptFiles) Keep(name string, fd int) error {
	k.mu.Lock()
	k.fds[name] = fd
	k.mu.Unlock()
	return k.Client.Keep(name, fd)
}

// Drop implements second.Keeper.
func (k *keptFiles) Drop(name string) {
	k.mu.Lock()
	delete(k.fds, name)
	k.mu.Unlock()
	k.Client.Drop(name)
}

func (k *keptFiles) again() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for name, fd := range k.fds {
		errs = append(errs, k.Client.Keep(name, fd))
	}
	return errors.Join(errs...)
}

func cutPolicy(option string) (string, bool) { return strings.CutPrefix(option, "policy=") }

// policyOfMount is the policy that a view is mounted with. One that cannot be used was complained of.
func (f *Flags) policyOfMount() *policy.Policy {
	path := DefaultPolicy
	for _, o := range f.Options {
		if file, ok := cutPolicy(o); ok {
			path = file
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return policy.Default()
	}
	p, err := policy.Parse(path, text)
	if err != nil {
		return policy.Default()
	}
	return p
}

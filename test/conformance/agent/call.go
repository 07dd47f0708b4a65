// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// operation runs one operation of the language and returns its value as text.
type operation func(c *call) (string, error)

// call hands an operation its arguments, one after the other. A wrong argument ends the call by a panic with a
// badCall, which do turns into a fault.
type call struct {
	*process
	words []string
	bind  string
}

type badCall string

func (c *call) do(run operation) (r Reply) {
	defer func() {
		if bad := recover(); bad != nil {
			message, ok := bad.(badCall)
			if !ok {
				panic(bad)
			}
			r = Reply{Fault: string(message)}
		}
	}()
	value, err := run(c)
	if len(c.words) > 0 {
		return Reply{Fault: fmt.Sprintf("arguments left over: %q", c.words)}
	}
	return reply(value, err)
}

// more tells whether there are arguments left.
func (c *call) more() bool { return len(c.words) > 0 }

// str takes the next argument as it stands: a path, most often.
func (c *call) str() string {
	if len(c.words) == 0 {
		panic(badCall("an argument is missing"))
	}
	word := c.words[0]
	c.words = c.words[1:]
	return word
}

// rest takes all remaining arguments.
func (c *call) rest() []string {
	words := c.words
	c.words = nil
	return words
}

// num takes a number; K, M and G multiply by powers of 1024.
func (c *call) num() int64 {
	word := c.str()
	digits := strings.TrimRight(word, "KMG")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		panic(badCall(fmt.Sprintf("%q is no number", word)))
	}
	shift := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30}
	return n << shift[word[len(digits):]]
}

func (c *call) int() int { return int(c.num()) }

// mode takes permission bits, in octal.
func (c *call) mode() uint32 {
	word := c.str()
	n, err := strconv.ParseUint(word, 8, 32)
	if err != nil {
		panic(badCall(fmt.Sprintf("%q is no octal mode", word)))
	}
	return uint32(n)
}

// flags takes constants joined by "|".
func (c *call) flags() int {
	n := 0
	for _, name := range strings.Split(c.str(), "|") {
		bit, ok := constants[name]
		if !ok {
			panic(badCall(fmt.Sprintf("unknown constant %q", name)))
		}
		n |= bit
	}
	return n
}

// fd takes the name of an open descriptor. "cwd" is AT_FDCWD, "bad" one that is not open.
func (c *call) fd() int {
	name := c.str()
	switch name {
	case "cwd":
		return unix.AT_FDCWD
	case "bad":
		return 9999
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fd, ok := c.files[name]
	if !ok {
		panic(badCall(fmt.Sprintf("no descriptor is called %q", name)))
	}
	return fd
}

// keep stores a new descriptor under the name of the step; without one it is closed at once.
func (c *call) keep(fd int, err error) (string, error) {
	if err != nil {
		return "", err
	}
	if c.bind == "" {
		return "", unix.Close(fd)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.files[c.bind]; ok {
		unix.Close(old)
	}
	c.files[c.bind] = fd
	return "", nil
}

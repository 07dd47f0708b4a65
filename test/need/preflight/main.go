// SPDX-License-Identifier: Apache-2.0

// Command preflight asks, before anything is built or installed, whether this machine can run what a make target runs, and
// prints everything that is missing at once. It also says what will happen, and how long about that takes.
//
//	preflight TARGET SENTENCE…
package main

import (
	"fmt"
	"os"
	"strings"

	"imgward/test/need"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: preflight TARGET WHAT-IT-DOES")
		os.Exit(2)
	}
	target, does := os.Args[1], os.Args[2:]
	fmt.Printf("make %s: %s\n", target, strings.Join(does, " "))
	lacks := need.Missing(append(need.View(), need.Loops, need.Space("/var/lib", 4), need.Space(os.TempDir(), 4))...)
	if len(lacks) > 0 {
		need.Tell(os.Stderr, "make "+target+" cannot run here", lacks)
		if os.Geteuid() != 0 {
			fmt.Fprintf(os.Stderr, "try: sudo make %s\n", target)
		}
		os.Exit(1)
	}
	if hint := need.NoKVM(); hint != "" {
		fmt.Println("  " + hint)
	}
}

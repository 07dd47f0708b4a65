// SPDX-License-Identifier: Apache-2.0

// Command gotest runs `go test`, never from the cache, and keeps what the suites' rules ask for and go test cannot:
//
//   - no deadline for a whole suite, which says nothing on a slow machine, but one for each test: a test binary in which for
//     -hang no test has begun or ended is asked for its goroutines and killed;
//   - under IMGWARD_TEST_REQUIRE=1 a skip that names no missing feature of the kernel is a failure;
//   - where the minutes went: the slowest tests, and all of them in the file that IMGWARD_TEST_TIMES names.
//
// It prints what failed in full and one line per package, and how the whole ended, with a line for each failure, also into the file that SUMMARY names.
//
//	gotest [-hang DURATION] LABEL ARGS-OF-GO-TEST…
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"imgward/test/need"
)

func main() {
	hang := flag.Duration("hang", 20*time.Minute, "how long one test may take")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: gotest [-hang DURATION] LABEL ARGS-OF-GO-TEST")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Args()[1:], *hang); err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

func run(label string, args []string, hang time.Duration) error {
	// None written yet is an error: a suite that ran nothing has not passed.
	if !strings.Contains(" "+strings.Join(args, " "), " ./") && !strings.Contains(" "+strings.Join(args, " "), " imgward/") {
		return fmt.Errorf("%s: no packages", label)
	}
	fmt.Println("==", label)
	began := time.Now()
	cmd := exec.Command(goCommand(), append([]string{"test", "-json", "-count=1", "-timeout=0"}, args...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r := newReport(need.Required())
	watch := watchFor(cmd.Process.Pid, hang)
	readErr := r.read(out, watch.alive)
	watch.stop()
	err = cmd.Wait()
	result := "ok"
	if err != nil || readErr != nil || r.failed {
		result = "FAIL"
	}
	r.slowest(os.Stdout, 5)
	line := fmt.Sprintf("%-4s  %-12s %5.0fs  cpu %5.0fs\n", result, label, time.Since(began).Seconds(), cpu().Seconds()) + strings.Join(r.reasons, "")
	fmt.Print(line)
	appendTo("SUMMARY", line)
	appendTo("IMGWARD_TEST_TIMES", r.times(label))
	if readErr != nil {
		return readErr
	}
	if result != "ok" {
		return fmt.Errorf("%s failed", label)
	}
	return nil
}

func goCommand() string {
	if name := os.Getenv("GO"); name != "" {
		return name
	}
	return "go"
}

// cpu is what everything that was run has used, user and system, as far as its parents waited for it.
func cpu() time.Duration {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// appendTo adds text to the file that an environment variable names, if it is set.
func appendTo(variable, text string) {
	path := os.Getenv(variable)
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
}

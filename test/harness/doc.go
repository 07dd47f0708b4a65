// SPDX-License-Identifier: Apache-2.0

// Package harness runs tests on the real thing: a libvirtd with real QEMU guests, and the built imgward binary mounted
// over an image directory, all inside namespaces of their own.
//
// A test binary calls Main from its TestMain. Main starts the binary a second time in new mount and pid namespaces with
// a private /run, /etc/libvirt and /var/lib/libvirt: the tests cannot see or disturb the host's own libvirt, two test
// binaries do not meet, and whatever a crashed test leaves running dies with the pid namespace.
//
// With IMGWARD_E2E_NATIVE=1 no view is mounted: the same tests then run on the plain directory. What must not be hindered
// must pass there too (else the test is wrong, not the view), and what must be refused must really do harm there (else
// the refusal proves nothing).
package harness

import "os"

// Native reports whether the tests run on the plain directory, without a view.
func Native() bool { return os.Getenv("IMGWARD_E2E_NATIVE") == "1" }

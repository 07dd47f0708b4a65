// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// An input_event of a 64-bit kernel: struct timeval, then type, code, value (linux/input.h).
const (
	inputEventLen = 24
	typeAt        = 16
	codeAt        = 18
	valueAt       = 20

	evKey    = 1
	keyPower = 116
)

// watchPowerButton powers the guest off when its ACPI power button is pressed, which is what `virsh shutdown` does.
func watchPowerButton() {
	for range 500 {
		devices, _ := filepath.Glob("/dev/input/event*")
		for _, dev := range devices {
			if f, err := os.Open(dev); err == nil {
				go watchInput(f)
			}
		}
		if len(devices) > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("agent: no power button")
}

func watchInput(f *os.File) {
	ev := make([]byte, inputEventLen)
	for {
		if n, err := f.Read(ev); err != nil || n != inputEventLen {
			return
		}
		isPower := binary.LittleEndian.Uint16(ev[typeAt:]) == evKey &&
			binary.LittleEndian.Uint16(ev[codeAt:]) == keyPower &&
			binary.LittleEndian.Uint32(ev[valueAt:]) == 1
		if isPower {
			fmt.Println("agent: power button")
			powerOff()
		}
	}
}

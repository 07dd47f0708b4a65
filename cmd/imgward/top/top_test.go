// SPDX-License-Identifier: Apache-2.0

package top

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"imgward/cmd/imgward/control"
)

func state(images, refusals int) *State {
	s := &State{View: control.View{Mountpoint: "/var/lib/libvirt/images", Policy: "preset default", Warnings: []string{"w1", "w2", "w3"}}}
	for i := range images {
		s.Images = append(s.Images, Row{
			Domain: fmt.Sprintf("a-very-long-domain-name-%d", i), Target: "vda", VMM: 4194304, Evidence: "libvirt", Read: 1e9, Write: -1,
			Path: strings.Repeat("ä", 90),
		})
	}
	for i := range refusals {
		s.Refusals = append(s.Refusals, fmt.Sprintf("refusal %d", i))
	}
	return s
}

func TestFits(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {132, 50}, {80, 10}, {20, 3}} {
		for _, images := range []int{0, 3, 100} {
			s := state(images, 20)
			s.Scroll = 1000
			lines := s.Draw(size[0], size[1])
			if len(lines) > size[1] {
				t.Errorf("%v with %d images: %d lines", size, images, len(lines))
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(l); n > size[0] {
					t.Errorf("%v: %d letters in %q", size, n, l)
				}
			}
		}
	}
}

func TestShows(t *testing.T) {
	screen := strings.Join(state(100, 20).Draw(80, 24), "\n")
	for _, want := range []string{"refusal 19", "a-very-long-dom+", "953.7M", "4194304", "and 1 more warnings", "q quit"} {
		if !strings.Contains(screen, want) {
			t.Errorf("%q is not there:\n%s", want, screen)
		}
	}
	only := state(100, 40)
	only.Only = true
	if screen := strings.Join(only.Draw(80, 24), "\n"); !strings.Contains(screen, "refusal 25") || strings.Contains(screen, "vda") {
		t.Errorf("refusals only:\n%s", screen)
	}
}

// TestUsesScreen: neither images nor refusals are cut while there is room left on the screen.
func TestUsesScreen(t *testing.T) {
	for _, c := range []struct{ images, refusals, rows, images0, refusals0 int }{
		{2, 30, 40, 2, 30}, {30, 0, 40, 30, 0}, {30, 2, 40, 30, 2}, {100, 100, 24, 9, 7},
	} {
		s := state(c.images, c.refusals)
		screen := strings.Join(s.Draw(80, c.rows), "\n")
		if i, r := strings.Count(screen, "4194304"), strings.Count(screen, "refusal "); i != c.images0 || r != c.refusals0 {
			t.Errorf("%+v: %d images and %d refusals are shown:\n%s", c, i, r, screen)
		}
	}
}

// What a VMM moves is moved once, however many disks it has.
func TestRateOfSeveralDisks(t *testing.T) {
	s := state(3, 0)
	for i := range s.Images {
		s.Images[i].Target, s.Images[i].Path = fmt.Sprintf("vd%c", 'a'+i), fmt.Sprintf("%d.img", i)
	}
	s.Images[2].VMM++ // another VM
	for scroll, want := range []int{2, 2} {
		s.Scroll = scroll
		if screen := strings.Join(s.Draw(80, 18-scroll), "\n"); strings.Count(screen, "953.7M") != want {
			t.Errorf("scrolled by %d:\n%s", scroll, screen)
		}
	}
}

func TestRate(t *testing.T) {
	for n, want := range map[float64]string{-1: "-", 0: "0", 999: "999", 1000: "1.0K", 1023999: "1.0M", 1 << 30: "1.0G", 1e18: "888.2P"} {
		if got := rate(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
}

func TestRates(t *testing.T) {
	var r Rates
	now := time.Now()
	if read, _ := r.Of(os.Getpid(), now); read >= 0 {
		t.Errorf("a rate from one sample: %v", read)
	}
	if _, write := r.Of(os.Getpid(), now.Add(time.Second)); write < 0 {
		t.Error("no rate from two samples")
	}
	if read, _ := r.Of(1<<30, now); read >= 0 {
		t.Error("a rate of no process")
	}
}

// Disks of one VM differ at the end of their names.
func TestCutMiddle(t *testing.T) {
	for name, want := range map[string]string{
		"short.img": "short.img", "a-very-long-name-of-an-image-disk1.img": "a-very-..disk1.img",
	} {
		if got := cutMiddle(name, 18); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := cutMiddle("image.img", 3); got != "im+" {
		t.Error(got)
	}
}

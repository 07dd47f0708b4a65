// SPDX-License-Identifier: Apache-2.0

package calls

import (
	"context"
	"testing"
	"time"
)

// More calls hang than run side by side, and the others are made all the same.
func TestPoolGoesOn(t *testing.T) {
	var p Pool
	hang := make(chan struct{})
	missing := 3 * atOnce
	for i := range 6 * atOnce {
		p.Go(false, func(found func(func())) {
			if i%2 == 0 {
				<-hang
			}
			found(func() { missing-- })
		})
	}
	if !p.Wait(context.Background(), func() bool { return missing > 0 }) {
		t.Fatalf("%d calls that return are not made", missing)
	}
	if p.Wait(context.Background(), func() bool { return missing > -3*atOnce }) {
		t.Fatal("calls that hang have returned")
	}
	close(hang)
	if !p.Wait(context.Background(), func() bool { return missing > -3*atOnce }) {
		t.Fatalf("what came late is lost: %d", missing)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	var p Pool
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if p.Wait(ctx, func() bool { return true }) {
		t.Error("nothing was missing")
	}
}

func TestKeyed(t *testing.T) {
	var k Keyed
	hang := make(chan struct{})
	if k.Do("a", func() { <-hang }) {
		t.Error("a call that hangs has ended")
	}
	if k.Do("a", func() {}) {
		t.Error("two calls with one key")
	}
	if !k.Do("b", func() {}) {
		t.Error("a call waits for another one")
	}
	close(hang)
}

// TestKeyedWaitsItsTurn: of two who ask the same at the same time both get an answer. Without one the guard would take an image
// for one that no loop device shows, say.
func TestKeyedWaitsItsTurn(t *testing.T) {
	const moment = 10 * time.Millisecond
	for range 20 { // a machine may be so busy that nobody is answered in time
		var k Keyed
		second := make(chan bool, 1)
		k.Do("a", func() {
			go func() { second <- k.Do("a", func() {}) }()
			time.Sleep(moment)
		})
		if <-second {
			return
		}
	}
	t.Error("whoever asks while another does gets no answer")
}

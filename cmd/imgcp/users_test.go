package main

import (
	"context"
	"errors"
	"testing"

	"imgward/guard"
)

// TestInterruptedQuestion: evidence on a file system that hangs does not keep anybody from giving up, and half an answer
// is none.
func TestInterruptedQuestion(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	if _, err := patiently(ctx, make(chan []guard.Use)); !errors.Is(err, errInterrupted) {
		t.Errorf("no answer: error %v", err)
	}
	answered := make(chan []guard.Use, 1)
	answered <- nil
	if uses, err := patiently(t.Context(), answered); uses != nil || err != nil {
		t.Errorf("answered: %v, error %v", uses, err)
	}
}

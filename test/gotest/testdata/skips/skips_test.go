package skips

import (
	"testing"

	"imgward/test/need"
)

func TestKernel(t *testing.T) { need.Kernel(t, "audit log (CONFIG_AUDIT)") }

func TestLong(t *testing.T) { need.Long(t) }

func TestNoReason(t *testing.T) { t.Skip("not today") }

package ehr_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain makes sure that no request, timer or connection outlives its client.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

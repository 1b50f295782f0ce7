package fhir_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/fhir"
)

// TestIsID: what is an id here may be asked for by it, so none may change a path.
func TestIsID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"p1", "A-1.b_2", "_", "a..b", strings.Repeat("x", 255)} {
		require.True(t, fhir.IsID(id), id)
	}
	for _, id := range []string{"", ".", "..", "p1/../p2", "p1?x=1", "p1#x", "a b", "p%31", "ü", strings.Repeat("x", 256)} {
		require.False(t, fhir.IsID(id), id)
	}
}

package mappings

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/fhir"
)

// TestCorpus maps what others have written: all of HL7's R4 examples of the types that Cura pulls (CC0, without their narratives),
// and a part of a Synthea hospital. corpus.golden says of each whether it is mapped, or why not.
func TestCorpus(t *testing.T) {
	t.Parallel()
	v, err := validator()
	require.NoError(t, err)
	files, err := filepath.Glob("testdata/corpus/*.ndjson")
	require.NoError(t, err)
	require.Len(t, files, 2)
	var got strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range bytes.Lines(text) {
			head, err := fhir.Head(line)
			require.NoError(t, err)
			says := "mapped"
			record, err := Map(line)
			switch invalid := v.Validate(line); {
			case invalid != nil:
				says = "invalid: " + invalid.Error()
			case err != nil:
				says = "rejected: " + err.Error()
			default:
				requireOneEntity(t, record)
				require.Equal(t, head.ID, record.EHRID)
			}
			fmt.Fprintf(&got, "%s %s/%s %s\n", strings.TrimSuffix(filepath.Base(file), ".ndjson"), head.Type, head.ID, says)
		}
	}
	const golden = "testdata/corpus/corpus.golden"
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err, "write it with: go test ./mappings -update")
	require.Equal(t, string(want), got.String())
}

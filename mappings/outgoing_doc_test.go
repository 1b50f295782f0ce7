package mappings

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The section is made from the tables: it must not go stale.
func TestOutgoingDocument(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, WriteOutgoing(&b))
	const file = "testdata/outgoing/section.md"
	if *update {
		require.NoError(t, os.WriteFile(file, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "write it with: go test ./mappings -update")
	require.Equal(t, string(want), b.String())
}

// Every element that is written has a row, and every row names an element that some variant writes.
func TestOutgoingTablesAreComplete(t *testing.T) {
	t.Parallel()
	// On every resource, or only an id to update: the rules tell of them.
	common := []string{"resourceType", "id", "meta", "identifier"}
	written := map[string]map[string]bool{}
	for _, w := range writes() {
		raw, err := Outbound(w.artefact, w.to)
		require.NoError(t, err)
		var elements map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(raw, &elements))
		if written[w.to.Resource] == nil {
			written[w.to.Resource] = map[string]bool{}
		}
		for element := range elements {
			written[w.to.Resource][element] = true
		}
	}
	require.Len(t, outTables(), len(written))
	for _, table := range outTables() {
		documented := map[string]bool{}
		for _, name := range common {
			documented[name] = true
		}
		for _, row := range table.Rows {
			element, _, _ := strings.Cut(row.Element, ".")
			documented[element] = true
		}
		require.Equal(t, documented, written[table.Resource], table.Resource)
	}
}

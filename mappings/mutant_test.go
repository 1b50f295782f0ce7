package mappings

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/fhir"
)

// marker stands for PHI wherever a mutant has it.
const marker = "S3cret"

// mutate changes one place of a JSON value: a member or an element is replaced, removed, doubled or renamed.
func mutate(t *rapid.T, value any) any {
	if rapid.IntRange(0, 3).Draw(t, "here") == 0 {
		return rapid.SampledFrom([]any{
			nil, true, marker, marker + "/" + marker, "#" + marker, "2020-02-30", "9999-12-31", "", " ", json.Number("-1.50"),
			json.Number("1e300"),
			[]any{},
			[]any{nil},
			[]any{marker},
			map[string]any{},
			map[string]any{marker: marker},
			map[string]any{"extension": []any{map[string]any{"url": extDataAbsent, "valueCode": "masked"}}},
			map[string]any{"reference": "Patient/" + marker},
			map[string]any{"coding": []any{map[string]any{"code": marker}}},
		}).Draw(t, "new")
	}
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			return marker
		}
		name := rapid.SampledFrom(names(v)).Draw(t, "name")
		switch rapid.SampledFrom([]string{"into", "into", "into", "drop", "rename", "extend"}).Draw(t, "how") {
		case "drop":
			delete(v, name)
		case "rename":
			v[marker] = v[name]
			delete(v, name)
		case "extend":
			v["_"+name] = map[string]any{"extension": []any{map[string]any{"url": "http://x.example", "valueString": marker}}}
		default:
			v[name] = mutate(t, v[name])
		}
	case []any:
		if len(v) == 0 {
			return []any{marker}
		}
		i := rapid.IntRange(0, len(v)-1).Draw(t, "index")
		v[i] = mutate(t, v[i])
	default:
		return marker
	}
	return value
}

// Whatever is wrong with a resource, nothing panics, no error tells a value, and what is valid and mapped keeps its id.
func TestMutants(t *testing.T) {
	t.Parallel()
	v, err := validator()
	require.NoError(t, err)
	var originals [][]byte
	for _, input := range inputs(t) {
		raw, err := os.ReadFile(input)
		require.NoError(t, err)
		originals = append(originals, raw)
	}
	rapid.Check(t, func(t *rapid.T) {
		value, err := decode(rapid.SampledFrom(originals).Draw(t, "original"))
		require.NoError(t, err)
		for range rapid.IntRange(1, 3).Draw(t, "mutations") {
			value = mutate(t, value)
		}
		raw, err := json.Marshal(value)
		require.NoError(t, err)

		invalid := v.Validate(raw)
		if invalid != nil {
			require.NotContains(t, strings.ToLower(invalid.Error()), strings.ToLower(marker))
		}
		record, err := Map(raw)
		if err != nil {
			require.NotContains(t, strings.ToLower(err.Error()), strings.ToLower(marker))
			return
		}
		_, err = Preview(raw)
		require.NoError(t, err)
		if invalid == nil {
			head, err := fhir.Head(raw)
			require.NoError(t, err)
			require.Equal(t, head.ID, record.EHRID)
		}
	})
}

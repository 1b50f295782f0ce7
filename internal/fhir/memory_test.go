package fhir_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/fhir"
)

// lookalikes are values that forms write as one, and their neighbours, which google/fhir may judge otherwise.
var lookalikes = []string{
	`1`, `7`, `999999999`, `1000000000`, `2147483648`, `0`, `-1`, `5.4`, `5.0`, `-5.4`, `0.1`, `-0`, `1e2`, `1.5e-3`,
	`123456789.123456789`, `1234567890.1234567890`,
	`"2024-02-28"`, `"2024-02-29"`, `"2023-02-29"`, `"2024-02-30"`, `"2024-04-31"`, `"2024-01-31"`, `"2024-13-01"`, `"1899-12-30"`,
	`"2099-12-30"`, `"2100-01-01"`, `"2024-01"`, `"2024"`,
	`"2024-01-02T03:04:05Z"`, `"2024-01-02T23:59:59.123+05:30"`, `"2024-01-02T03:04:05-13:59"`, `"2024-01-02T24:00:00Z"`,
	`"2024-01-02T03:04:60Z"`, `"2024-01-02T03:04:05+14:00"`, `"2024-01-02T03:04:05"`, `"2024-01-02T03:04Z"`, `"2024-01-02T03:04:05.Z"`,
	`"2024-01-02T03:04:05.123456789Z"`, `"2024-01-02T03:04:05.1234567891Z"`, `"0000-00-00"`, `"0000-00-00T00:00:00Z"`, `"\u0001t0000-00-00"`,
	`"Patient/1"`, `"Patient/1234"`, `"Patient/12345"`, `"Patient/abcd"`, `"Patient/a-b"`, `"Patient/a.b"`, `"Patient/a_b"`,
	`"Patient/` + strings.Repeat("e", 65) + `"`, `"Practitioner/1"`, `"Medication/med-1"`, `"Nothing/1"`, `"patient/1"`, `"Patient/"`,
	`"Patient/1/_history/2"`, `"/1"`, `"#1"`, `"urn:uuid:1"`, `"https://ehr.example/Patient/1"`, `"P\u0061tient/1"`,
	`"1"`, `"a-b"`, `"a_b"`, `""`, `" "`, `"final"`, `"mg"`, `"http://loinc.org"`, `"é"`,
	`true`, `false`, `null`, `{}`, `[]`, `[null]`,
	`{"reference":"Patient/1"}`, `{"text":"x"}`, `{"value":5.4,"unit":"mg"}`, `{"id":"a b"}`, `{"id":"a-b"}`, `{"versionId":"a_b"}`,
	`{"lastUpdated":"2024-01-02T03:04:05Z"}`, `{ "text" : "x" }`,
}

// places lists every place of a resource where a value can be put: each set puts one.
func places(value any, set func(any), found *[]func(any)) {
	if set != nil {
		*found = append(*found, set)
	}
	switch v := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			places(v[name], func(to any) { v[name] = to }, found)
		}
	case []any:
		for i := range v {
			places(v[i], func(to any) { v[i] = to }, found)
		}
	}
}

func decode(tb testing.TB, raw []byte) map[string]any {
	tb.Helper()
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	var resource map[string]any
	require.NoError(tb, decoder.Decode(&resource))
	return resource
}

func pair(tb testing.TB) (remembering, forgetful *fhir.Validator) {
	tb.Helper()
	remembering, err := fhir.NewValidator()
	require.NoError(tb, err)
	forgetful, err = fhir.NewForgetfulValidator()
	require.NoError(tb, err)
	return remembering, forgetful
}

// verdict is valid or not: which of several issues google/fhir tells depends on the order of a map.
func verdict(err error) string {
	if err == nil {
		return "valid"
	}
	return "invalid"
}

// TestMemoryChangesNoVerdict: a validator that remembers says the same of every mutant as one that doesn't, whatever it was
// asked before. A mutant has one to three values replaced, by lookalikes or by values of the same place in other resources, or
// members moved from one resource to another.
func TestMemoryChangesNoVerdict(t *testing.T) {
	t.Parallel()
	remembering, forgetful := pair(t)
	resources := seeds(t)
	for _, raw := range resources {
		require.Equal(t, verdict(forgetful.Validate(raw)), verdict(remembering.Validate(raw)))
	}
	r := rand.New(rand.NewPCG(1, 2)) // a test that fails must fail again
	mutants, valid := 12_000, 0
	if testing.Short() {
		mutants = 1_000
	}
	for range mutants {
		resource := decode(t, resources[r.IntN(len(resources))])
		for range 1 + r.IntN(3) {
			if r.IntN(4) == 0 {
				other := decode(t, resources[r.IntN(len(resources))])
				names := slices.Sorted(maps.Keys(other))
				name := names[r.IntN(len(names))]
				if name != "resourceType" {
					resource[name] = other[name]
				}
				continue
			}
			var found []func(any)
			places(resource, nil, &found)
			found[r.IntN(len(found))](json.RawMessage(lookalikes[r.IntN(len(lookalikes))]))
		}
		raw, err := json.Marshal(resource)
		require.NoError(t, err)
		want := verdict(forgetful.Validate(raw))
		if want == "valid" {
			valid++
		}
		for range 2 {
			require.Equal(t, want, verdict(remembering.Validate(raw)), "%s", raw)
		}
	}
	require.Greater(t, valid, mutants/20, "mutants of both kinds")
}

// TestMemoryKnowsWhatFormsStandFor puts every lookalike into every place of each example, one after the other, so that what was
// valid before is remembered when its neighbours come.
func TestMemoryKnowsWhatFormsStandFor(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("some hundred thousand resources")
	}
	remembering, forgetful := pair(t)
	for _, seed := range seeds(t)[:6] {
		resource := decode(t, seed)
		var found []func(any)
		places(resource, nil, &found)
		for i := range found {
			for _, value := range lookalikes {
				resource := decode(t, seed)
				var found []func(any)
				places(resource, nil, &found)
				found[i](json.RawMessage(value))
				raw, err := json.Marshal(resource)
				require.NoError(t, err)
				require.Equal(t, verdict(forgetful.Validate(raw)), verdict(remembering.Validate(raw)), "%s", raw)
			}
		}
	}
}

// TestMemoryForgetsTheOldest: more forms than it holds, and none of them mistaken.
func TestMemoryForgetsTheOldest(t *testing.T) {
	t.Parallel()
	remembering, _ := pair(t)
	for i := range 40_000 {
		require.NoError(t, remembering.Validate(fmt.Appendf(nil, `{%s,"note":[{"text":"n%d"}]}`, observation, i)))
	}
	require.Error(t, remembering.Validate([]byte(`{`+observation+`,"note":[{"text":1}]}`)))
}

// FuzzMemory looks for two resources where what is remembered of the first misjudges the second.
func FuzzMemory(f *testing.F) {
	for _, raw := range seeds(f) {
		f.Add(raw, raw)
	}
	forgetful, err := fhir.NewForgetfulValidator()
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		remembering, err := fhir.NewValidator()
		require.NoError(t, err)
		for _, raw := range [][]byte{first, second, second} {
			require.Equal(t, verdict(forgetful.Validate(raw)), verdict(remembering.Validate(raw)))
		}
	})
}

package mappings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

func overridesOf(t require.TestingT, text string) *Overrides {
	o, err := ParseOverrides("site.yaml", []byte(text))
	require.NoError(t, err)
	return o
}

// Each case in testdata/overrides is a file of overrides, a resource that it is for, and the lines of the preview that it changes.
func TestOverridesGolden(t *testing.T) {
	t.Parallel()
	v, err := validator()
	require.NoError(t, err)
	files, err := filepath.Glob("testdata/overrides/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		stem := strings.TrimSuffix(file, ".yaml")
		t.Run(filepath.Base(stem), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			o, err := ParseOverrides(file, text)
			require.NoError(t, err)
			raw, err := os.ReadFile(stem + ".json")
			require.NoError(t, err)
			require.NoError(t, v.Validate(raw))
			got, err := PreviewWith(raw, nil, o)
			require.NoError(t, err)
			got.Lines = slices.DeleteFunc(got.Lines, func(l OverrideLine) bool { return l.Before == l.After })

			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			require.NoError(t, enc.Encode(got))
			if *update {
				require.NoError(t, os.WriteFile(stem+".golden", b.Bytes(), 0o644))
			}
			want, err := os.ReadFile(stem + ".golden")
			require.NoError(t, err, "write it with: go test ./mappings -update")
			require.Equal(t, string(want), b.String())
		})
	}
}

func TestWithoutOverridesNothingChanges(t *testing.T) {
	t.Parallel()
	none := overridesOf(t, "version: 1")
	for _, input := range inputs(t) {
		raw, err := os.ReadFile(input)
		require.NoError(t, err)
		want, wantErr := Map(raw)
		for _, o := range []*Overrides{nil, none} {
			got, err := MapWith(raw, o)
			require.Equal(t, wantErr, err, input)
			require.Equal(t, want, got, input)
		}
	}
}

// What the mapping rejects stays rejected, and a preview says so.
func TestOverridesLetNothingPass(t *testing.T) {
	t.Parallel()
	o := overridesOf(t, OverridesExample())
	var rejected *RejectedError
	for _, raw := range []string{"{", `{"resourceType":"Condition"}`, `{"resourceType":"Observation","id":"1","status":"final"}`} {
		_, err := MapWith([]byte(raw), o)
		require.ErrorAs(t, err, &rejected)
		_, err = PreviewWith([]byte(raw), nil, o)
		require.ErrorAs(t, err, &rejected)
	}
}

func TestOverridesVersion(t *testing.T) {
	t.Parallel()
	var none *Overrides
	require.Equal(t, Version, none.Version())
	require.Zero(t, none.Number())
	one, two := overridesOf(t, "version: 7"), overridesOf(t, "version: 7 # changed")
	require.Regexp(t, `^1\+site\.7\.[0-9a-f]{8}$`, one.Version())
	require.Equal(t, 7, one.Number())
	require.NotEqual(t, one.Version(), two.Version(), "the text counts, not only its number")
	require.Equal(t, one.Version(), overridesOf(t, "version: 7").Version())
}

func TestOverridesExclude(t *testing.T) {
	t.Parallel()
	var none *Overrides
	o := overridesOf(t, "version: 1\ntypes: {exclude: [Consent]}")
	for _, typ := range cura.ResourceTypes() {
		require.False(t, none.Excludes(typ))
		require.Equal(t, typ == cura.Consent, o.Excludes(typ), typ)
	}
	require.Empty(t, none.Excluded())
	require.Equal(t, []cura.ResourceType{cura.Consent}, o.Excluded())
}

func TestOverridesExampleParses(t *testing.T) {
	t.Parallel()
	o := overridesOf(t, OverridesExample())
	require.Equal(t, OverrideCounts{Identifiers: 2, NameUses: 2, Codes: 3, Units: 3, Categories: 1, Excluded: 1}, o.Counts())
	var none *Overrides
	require.Zero(t, none.Counts())
}

// Fields are named as in MAPPINGS.md.
func TestCodedFieldsAreFields(t *testing.T) {
	t.Parallel()
	for _, typ := range cura.ResourceTypes() {
		_, entity := sides(typ)
		for _, f := range codedFields(typ) {
			require.True(t, resolves(entity, f.name), "%s has no field %s", typ, f.name)
			if f.name == fieldClass {
				continue
			}
			require.NotNil(t, f.concepts(fullRecord(typ)), "%s.%s leads to no concept", typ, f.name)
		}
	}
}

// fullRecord is a record with one of everything that is coded.
func fullRecord(t cura.ResourceType) *cura.Record {
	concepts := []cura.Concept{{Text: "x"}}
	switch t {
	case cura.AllergyIntolerance:
		return &cura.Record{Type: t, Allergy: &cura.Allergy{Reactions: []cura.AllergyReaction{{Manifestations: concepts}}}}
	case cura.MedicationRequest, cura.MedicationStatement:
		return &cura.Record{Type: t, Medication: &cura.Medication{Reasons: concepts, Dosages: []cura.Dosage{{}}}}
	case cura.Observation:
		return &cura.Record{Type: t, Observation: &cura.LabObservation{
			Value: &cura.ObservationValue{Kind: "concept", Concept: &concepts[0]}, Interpretations: concepts,
		}}
	case cura.Encounter:
		return &cura.Record{Type: t, Visit: &cura.Visit{Types: concepts, Reasons: concepts, Participants: []cura.Participant{{Roles: concepts}}}}
	case cura.Patient, cura.Consent:
	}
	return &cura.Record{Type: t}
}

// site is a file of overrides in its entries, so that their order can be changed.
type site struct{ rename, codes, units, categories []string }

func (s site) text() string {
	part := func(head, margin string, entries []string) string {
		if len(entries) == 0 {
			return ""
		}
		return head + margin + strings.Join(entries, margin) + "\n"
	}
	return "version: 1\n" + part("identifiers:\n  rename:", "\n    ", s.rename) + part("codes:", "\n  - ", s.codes) +
		part("units:", "\n  - ", s.units) + part("categories:\n  Observation:", "\n    - ", s.categories) + "name: {use: [usual, none]}\n"
}

// drawSite draws entries of few names, so that they meet, chain and contradict each other. Not every file parses.
func drawSite(t *rapid.T) site {
	code := func(name string) string {
		return fmt.Sprintf("{system: %q, code: %q}", rapid.SampledFrom([]string{"urn:s:1", "urn:s:2"}).Draw(t, name+" system"),
			rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, name))
	}
	unit := rapid.SampledFrom([]string{"u", "v", "w", "x", "y", "z"})
	entries := func(name string, most int, draw func() string) []string {
		var out []string
		for range rapid.IntRange(0, most).Draw(t, name) {
			out = append(out, draw())
		}
		return out
	}
	return site{
		rename: entries("renames", 3, func() string {
			return fmt.Sprintf("%q: %q", "urn:i:"+unit.Draw(t, "system"), "urn:i:"+unit.Draw(t, "to system"))
		}),
		codes: entries("codes", 4, func() string {
			field := rapid.SampledFrom([]string{"code", "value"}).Draw(t, "field")
			return fmt.Sprintf("{resource: Observation, field: %s, from: %s, to: %s}", field, code("from"), code("to"))
		}),
		units: entries("units", 4, func() string {
			of := "any"
			if rapid.Bool().Draw(t, "specific") {
				of = code("unit of")
			}
			how := rapid.SampledFrom([]string{"factor: 10", "factor: 0.5, offset: -3", "same: true"}).Draw(t, "how")
			return fmt.Sprintf("{resource: Observation, code: %s, from: %s, to: %s, %s}", of, unit.Draw(t, "unit"), unit.Draw(t, "to unit"), how)
		}),
		categories: entries("categories", 2, func() string {
			return fmt.Sprintf("{from: %s, to: %s}", code("category"), rapid.SampledFrom([]string{"laboratory", "exam"}).Draw(t, "category to"))
		}),
	}
}

// drawRecord draws a record that such entries are about.
func drawRecord(t *rapid.T) []byte {
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	if rapid.IntRange(0, 3).Draw(t, "is a patient") == 0 {
		return fmt.Appendf(nil, `{"resourceType":"Patient","id":"1","name":[{"use":%q,"text":"A"},{"use":%q,"text":"B"},{"text":"C"}],
			"identifier":[{"system":"urn:i:%s","value":"1"},{"system":"urn:i:%s","value":"2"}]}`,
			pick("use", "usual", "official", "old"), pick("use 2", "usual", "official", "old"), pick("system", "u", "v"), pick("system 2", "w", "x"))
	}
	concept := func(name string) string {
		var codings []string
		for range rapid.IntRange(1, 3).Draw(t, name) {
			codings = append(codings, fmt.Sprintf(`{"system":%q,"code":%q,"display":%q}`, pick("system", "urn:s:1", "urn:s:2"), pick("code", "a", "b", "c", "d", "e"), pick("display", "", "d")))
		}
		return `{"coding":[` + strings.Join(codings, ",") + `]}`
	}
	quantity := func(name string) string {
		return fmt.Sprintf(`{"value":%s,%s}`, pick(name, "0.0", "5.40", "-12", "1.5e3"),
			pick("unit", `"unit":"u"`, `"unit":"v"`, `"unit":"w","code":"x","system":"http://unitsofmeasure.org"`, `"comparator":"<","code":"y"`, `"comparator":">"`))
	}
	measure := func(name string) string {
		value := pick(name+" value", `"valueQuantity":`+quantity("quantity"), `"valueRange":{"low":`+quantity("low")+`,"high":`+quantity("high")+`}`,
			`"valueCodeableConcept":`+concept("value"), `"valueString":"s"`)
		if rapid.Bool().Draw(t, "absent") {
			value = `"dataAbsentReason":{"text":"x"}`
		}
		return `"code":` + concept("code") + `,` + value + `,"referenceRange":[{"low":` + quantity("range low") + `,"high":` + quantity("range high") + `,"text":"1-2"},{"text":"1-2 u"}]`
	}
	return fmt.Appendf(nil, `{"resourceType":"Observation","id":"1","status":"final","subject":{"reference":"Patient/1"},"category":[%s],%s,"component":[{%s}]}`,
		concept("category"), measure("whole"), measure("component"))
}

// Applied twice, overrides change no more than once; the order of their entries changes nothing; each unit that they lead to is where
// it ends.
func TestOverridesProperties(t *testing.T) {
	t.Parallel()
	parsed := 0
	rapid.Check(t, func(t *rapid.T) {
		s := drawSite(t)
		o, err := ParseOverrides("site.yaml", []byte(s.text()))
		shuffled := site{
			rapid.Permutation(s.rename).Draw(t, "renames shuffled"), rapid.Permutation(s.codes).Draw(t, "codes shuffled"),
			rapid.Permutation(s.units).Draw(t, "units shuffled"), rapid.Permutation(s.categories).Draw(t, "categories shuffled"),
		}
		other, otherErr := ParseOverrides("site.yaml", []byte(shuffled.text()))
		require.Equal(t, err == nil, otherErr == nil, "a fault doesn't depend on the order: %v, %v", err, otherErr)
		if err != nil {
			require.True(t, fault.Is(err, fault.Config))
			return
		}
		parsed++
		raw := drawRecord(t)
		once, err := MapWith(raw, o)
		require.NoError(t, err)
		otherwise, err := MapWith(raw, other)
		require.NoError(t, err)
		require.Equal(t, once, otherwise)

		twice, err := MapWith(raw, o)
		require.NoError(t, err)
		twice = o.apply(&mapper{typ: twice.Type}, twice)
		require.Equal(t, once, twice)
		_, err = PreviewWith(raw, nil, o)
		require.NoError(t, err)
	})
	require.NotZero(t, parsed)
}

// A preview compares the overrides that hold with those that will.
func TestPreviewBetweenTwoOverrides(t *testing.T) {
	t.Parallel()
	unit := "version: %d\nunits: [{resource: Observation, code: any, from: mg%%, to: mg/dL, factor: %d}]"
	was, willBe := overridesOf(t, fmt.Sprintf(unit, 1, 1)), overridesOf(t, fmt.Sprintf(unit, 2, 10))
	p, err := PreviewWith([]byte(`{"resourceType":"Observation","id":"o1","status":"final","code":{"text":"x"},
		"subject":{"reference":"Patient/p1"},"valueQuantity":{"value":5.40,"unit":"mg%"}}`), was, willBe)
	require.NoError(t, err)
	require.Equal(t, []string{was.Version(), willBe.Version()}, []string{p.VersionBefore, p.VersionAfter})
	require.Equal(t, 1, p.Changed())
	require.Contains(t, p.Lines, OverrideLine{
		Element: "Observation.valueQuantity", Source: "5.40 mg%", Field: "labs.observations.value",
		Before: "kind=quantity quantity=(5.40 mg/dL)", After: "kind=quantity quantity=(54.0 mg/dL)",
	})
}

// Overrides are read only: any number of goroutines may map with them.
func TestOverridesAreShared(t *testing.T) {
	t.Parallel()
	o := overridesOf(t, OverridesExample())
	raw, err := os.ReadFile("testdata/overrides/units-offset.json")
	require.NoError(t, err)
	want, err := MapWith(raw, o)
	require.NoError(t, err)
	for i := range 4 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			got, err := MapWith(raw, o)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func FuzzOverrides(f *testing.F) {
	files, err := filepath.Glob("testdata/overrides/*.yaml")
	require.NoError(f, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Add([]byte(OverridesExample()))
	for _, tt := range brokenOverrides() {
		f.Add([]byte(tt.text))
	}
	var raws [][]byte
	for _, input := range inputs(f) {
		raw, err := os.ReadFile(input)
		require.NoError(f, err)
		raws = append(raws, raw)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := ParseOverrides("site.yaml", text)
		if err != nil {
			require.True(t, fault.Is(err, fault.Config))
			require.Contains(t, err.Error(), "site.yaml:")
			return
		}
		for _, raw := range raws {
			record, err := MapWith(raw, o)
			if err != nil {
				var rejected *RejectedError
				require.ErrorAs(t, err, &rejected)
				continue
			}
			_, err = json.Marshal(goldenRecord(record))
			require.NoError(t, err, "a record can always be written")
		}
	})
}

// BenchmarkOverrides measures what overrides cost: without any, MapWith is Map.
func BenchmarkOverrides(b *testing.B) {
	raw, err := os.ReadFile("testdata/overrides/units-factor.json")
	require.NoError(b, err)
	text, err := os.ReadFile("testdata/overrides/units-factor.yaml")
	require.NoError(b, err)
	o := overridesOf(b, string(text))
	for _, run := range []struct {
		name string
		each func() (cura.Record, error)
	}{
		{"Map", func() (cura.Record, error) { return Map(raw) }},
		{"MapWith none", func() (cura.Record, error) { return MapWith(raw, nil) }},
		{"MapWith some", func() (cura.Record, error) { return MapWith(raw, o) }},
	} {
		b.Run(run.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := run.each()
				require.NoError(b, err)
			}
		})
	}
}

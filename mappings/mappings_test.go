package mappings

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

var update = flag.Bool("update", false, "write the golden files and MAPPINGS.md anew")

var validator = sync.OnceValues(fhir.NewValidator)

// golden is what becomes of an input, as its golden file shows it.
type golden struct {
	Invalid  string        `json:"invalid,omitempty"`
	Rejected string        `json:"rejected,omitempty"`
	Record   *goldenRecord `json:"record,omitempty"`
}

type goldenRecord struct {
	Type           cura.ResourceType    `json:"type"`
	EHRID          string               `json:"ehr_id"`
	PatientEHRID   string               `json:"patient_ehr_id"`
	PatientBase    string               `json:"patient_base,omitempty"`
	LastUpdated    time.Time            `json:"last_updated,omitzero"`
	VersionID      string               `json:"version_id,omitempty"`
	EnteredInError bool                 `json:"entered_in_error,omitempty"`
	WrittenAs      string               `json:"written_as,omitempty"`
	Profile        *cura.Profile        `json:"profile,omitempty"`
	Allergy        *cura.Allergy        `json:"allergy,omitempty"`
	Medication     *cura.Medication     `json:"medication,omitempty"`
	Observation    *cura.LabObservation `json:"observation,omitempty"`
	Visit          *cura.Visit          `json:"visit,omitempty"`
	Consent        *cura.ConsentEntry   `json:"consent,omitempty"`
}

// inputs are the resources in testdata: the traps of real EHRs, one a file, and some of HL7's own examples (hl7-*, CC0).
func inputs(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(tb, err)
	var out []string
	for _, f := range files {
		if !strings.HasSuffix(f, ".golden.json") {
			out = append(out, f)
		}
	}
	require.NotEmpty(tb, out)
	return out
}

func TestGolden(t *testing.T) {
	t.Parallel()
	v, err := validator()
	require.NoError(t, err)
	for _, input := range inputs(t) {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".json"), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(input)
			require.NoError(t, err)
			var got golden
			if err := v.Validate(raw); err != nil {
				got.Invalid = err.Error()
			}
			record, err := Map(raw)
			if err == nil {
				shown := goldenRecord(record)
				got.Record = &shown
				requireOneEntity(t, record)
			} else {
				got.Rejected = err.Error()
			}
			text, err := json.MarshalIndent(got, "", "  ")
			require.NoError(t, err)
			file := strings.TrimSuffix(input, ".json") + ".golden.json"
			if *update {
				require.NoError(t, os.WriteFile(file, append(text, '\n'), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err, "write it with: go test ./mappings -update")
			require.Equal(t, string(want), string(text)+"\n")
		})
	}
}

// requireOneEntity checks that a record holds one entity, the one that belongs to its type.
func requireOneEntity(t *testing.T, r cura.Record) {
	t.Helper()
	require.Equal(t, r.Type == cura.Patient, r.Profile != nil)
	require.Equal(t, r.Type == cura.AllergyIntolerance, r.Allergy != nil)
	require.Equal(t, r.Type == cura.MedicationRequest || r.Type == cura.MedicationStatement, r.Medication != nil)
	require.Equal(t, r.Type == cura.Observation, r.Observation != nil)
	require.Equal(t, r.Type == cura.Encounter, r.Visit != nil)
	require.Equal(t, r.Type == cura.Consent, r.Consent != nil)
}

func TestMapIsPure(t *testing.T) {
	t.Parallel()
	for _, input := range inputs(t) {
		raw, err := os.ReadFile(input)
		require.NoError(t, err)
		before := bytes.Clone(raw)
		one, errOne := Map(raw)
		two, errTwo := Map(raw)
		require.Equal(t, one, two, input)
		require.Equal(t, errOne, errTwo, input)
		require.Equal(t, before, raw, "Map must not change its input")
	}
}

func TestMapRejects(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, raw string
		want      []Reason
	}{
		{"broken JSON", `{"resourceType":"Patient","id":"secret"`, []Reason{{"", "the JSON isn't well formed"}}},
		{"a type that isn't mapped", `{"resourceType":"Condition","id":"secret"}`, []Reason{{"resourceType", "Cura maps no resources of this type"}}},
		{"a type that isn't one", `{"resourceType":"Secret"}`, []Reason{{"resourceType", "Cura maps no resources of this type"}}},
		{"a JSON kind that doesn't belong", `{"resourceType":"Patient","id":"1","name":[{"given":"secret"}]}`, []Reason{{"Patient.name.given", "isn't of the JSON kind that belongs here"}}},
		{"several at once", `{"resourceType":"Encounter","status":"secret","period":{"start":"secret"}}`, []Reason{
			{"Encounter.status", "isn't a code of the required value set"},
			{"Encounter.id", "missing: without it no later version can be told from a new resource"},
			{"Encounter.subject", "missing: a record without a patient belongs to nobody"},
			{"Encounter.period.start", "isn't a date or time that R4 knows"},
		}},
		{"two values", `{"resourceType":"Observation","id":"1","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/1"},"valueString":"secret","valueBoolean":true}`, []Reason{{"Observation.value[x]", "has more than one value"}}},
		{"a code that says nothing", `{"resourceType":"Observation","id":"1","status":"final","code":{},"subject":{"reference":"Patient/1"}}`, []Reason{{"Observation.code", "says nothing: neither a coding nor a text"}}},
		{"a time of day in a birth date", `{"resourceType":"Patient","id":"1","birthDate":"1970-01-01T00:00:00Z"}`, []Reason{{"Patient.birthDate", "has a time of day where a date belongs"}}},
		{"an unreadable date in a component", `{"resourceType":"Observation","id":"1","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/1"},"component":[{"code":{"text":"y"},"valueDateTime":"secret"}]}`, []Reason{{"Observation.component[0].valueDateTime", "isn't a date or time that R4 knows"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			record, err := Map([]byte(tt.raw))
			var rejected *RejectedError
			require.ErrorAs(t, err, &rejected)
			require.Equal(t, tt.want, rejected.Reasons)
			require.NotContains(t, strings.ToLower(err.Error()), "secret", "no value may be told")
			require.Zero(t, record)
		})
	}
}

// Each kind of value[x] keeps what it says, digit by digit.
func TestObservationValues(t *testing.T) {
	t.Parallel()
	yes := true
	for _, tt := range []struct {
		element string
		want    cura.ObservationValue
	}{
		{`"valueQuantity":{"value":5.40,"comparator":"<","unit":"mg"}`, cura.ObservationValue{Kind: "quantity", Quantity: &cura.Quantity{Value: "5.40", Comparator: "<", Unit: "mg"}}},
		{`"valueQuantity":{"value":-0.00}`, cura.ObservationValue{Kind: "quantity", Quantity: &cura.Quantity{Value: "-0.00"}}},
		{`"valueQuantity":{"value":1.20E+3}`, cura.ObservationValue{Kind: "quantity", Quantity: &cura.Quantity{Value: "1.20E+3"}}},
		{`"valueCodeableConcept":{"coding":[{"code":"a"},{"code":"b"}],"text":"t"}`, cura.ObservationValue{Kind: "concept", Concept: &cura.Concept{Text: "t", Codings: []cura.Coding{{Code: "a"}, {Code: "b"}}}}},
		{`"valueString":"as it \u0063ame "`, cura.ObservationValue{Kind: "string", Text: "as it came "}},
		{`"valueBoolean":true`, cura.ObservationValue{Kind: "boolean", Boolean: &yes}},
		{`"valueInteger":-12`, cura.ObservationValue{Kind: "integer", Integer: "-12"}},
		{`"valueRange":{"low":{"value":1.0},"high":{"value":2}}`, cura.ObservationValue{Kind: "range", Range: &cura.Range{Low: &cura.Quantity{Value: "1.0"}, High: &cura.Quantity{Value: "2"}}}},
		{`"valueRatio":{"numerator":{"value":1},"denominator":{"value":128}}`, cura.ObservationValue{Kind: "ratio", Ratio: &cura.Ratio{Numerator: &cura.Quantity{Value: "1"}, Denominator: &cura.Quantity{Value: "128"}}}},
		{`"valueSampledData":{"origin":{"value":0}, "period":10, "dimensions":1, "data":"1 2 E"}`, cura.ObservationValue{Kind: "sampled-data", Text: `{"origin":{"value":0},"period":10,"dimensions":1,"data":"1 2 E"}`}},
		{`"valueTime":"12:30:00"`, cura.ObservationValue{Kind: "time", Text: "12:30:00"}},
		{`"valueDateTime":"2020"`, cura.ObservationValue{Kind: "date-time", Moment: momentOf(t, "2020")}},
		{`"valuePeriod":{"start":"2020"}`, cura.ObservationValue{Kind: "period", Period: &cura.Period{Start: momentOf(t, "2020")}}},
	} {
		t.Run(tt.want.Kind, func(t *testing.T) {
			t.Parallel()
			raw := `{"resourceType":"Observation","id":"1","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/1"},` + tt.element +
				`,"component":[{"code":{"text":"y"},` + tt.element + `}]}`
			v, err := validator()
			require.NoError(t, err)
			require.NoError(t, v.Validate([]byte(raw)))
			record, err := Map([]byte(raw))
			require.NoError(t, err)
			require.Equal(t, &tt.want, record.Observation.Value)
			require.Equal(t, &tt.want, record.Observation.Components[0].Value)
		})
	}
}

func momentOf(t *testing.T, text string) *cura.Moment {
	t.Helper()
	m, ok := parseMoment(text)
	require.True(t, ok)
	return &m
}

func TestParseReference(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]target{
		"Patient/1":                                       {typ: "Patient", id: "1"},
		"Patient/1/_history/2":                            {typ: "Patient", id: "1"},
		"https://ehr.example/r4/Patient/1":                {base: "https://ehr.example/r4", typ: "Patient", id: "1"},
		"http://ehr.example/Patient/a-B.9/_history/2":     {base: "http://ehr.example", typ: "Patient", id: "a-B.9"},
		"Patient/" + strings.Repeat("e", 200):             {typ: "Patient", id: strings.Repeat("e", 200)},
		"Group/1":                                         {typ: "Group", id: "1"},
		"https://ehr.example/Patient/Patient/1":           {base: "https://ehr.example/Patient", typ: "Patient", id: "1"},
		"https://ehr.example:8443/a/b/c/Encounter/x-y-z.": {base: "https://ehr.example:8443/a/b/c", typ: "Encounter", id: "x-y-z."},
	} {
		got, ok := parseReference(text)
		require.True(t, ok, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{
		"", "#p", "1", "urn:uuid:c757873d-ec9a-4326-a141-556f43239520", "Patient?identifier=1", "Patient/", "/1", "patient/1",
		"Patient/1?x=y", "Patient/a b", "a/Patient/1", "/Patient/1", "ftp://x/Patient/1", "Patient/1/2", "Patient/" + strings.Repeat("e", 256),
	} {
		_, ok := parseReference(text)
		require.False(t, ok, text)
	}
}

func FuzzMap(f *testing.F) {
	for _, input := range inputs(f) {
		raw, err := os.ReadFile(input)
		require.NoError(f, err)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		record, err := Map(raw)
		if err != nil {
			var rejected *RejectedError
			require.ErrorAs(t, err, &rejected)
			require.NotEmpty(t, rejected.Reasons)
			return
		}
		_, err = json.Marshal(goldenRecord(record))
		require.NoError(t, err, "a record can always be written")
		require.NotEmpty(t, record.PatientEHRID)
		v, err := validator()
		require.NoError(t, err)
		if v.Validate(raw) != nil {
			return
		}
		head, err := fhir.Head(raw)
		require.NoError(t, err)
		require.Equal(t, head.ID, record.EHRID)
		require.Equal(t, head.VersionID, record.VersionID)
		_, err = Preview(raw)
		require.NoError(t, err)
	})
}

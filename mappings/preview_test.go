package mappings

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

func TestPreview(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/patient-identifiers.json")
	require.NoError(t, err)
	lines, err := Preview(raw)
	require.NoError(t, err)
	require.Contains(t, lines, Line{Element: "Patient.name[0]", Source: "text=Theodore Mychart", Field: "profiles.name", Value: "display=Theodore Mychart"})
	require.Contains(t, lines, Line{Element: "Patient.birthDate", Source: "1948-07-07", Field: "profiles.birth_date", Value: "1948-07-07 (day)"})

	raw, err = os.ReadFile("testdata/observation-a1c.json")
	require.NoError(t, err)
	lines, err = Preview(raw)
	require.NoError(t, err)
	require.Contains(t, lines, Line{
		Element: "Observation.valueQuantity", Source: ">14.00 %", Field: "labs.observations.value", Value: "kind=quantity quantity=(>14.00 %)",
	})
	require.Contains(t, lines, Line{
		Element: "Observation.code", Field: "labs.observations.analyte", Value: "hemoglobin-a1c",
		Source: "HbA1c | HbA1c (HBA1C, http://hospital.example/labs) | Hemoglobin A1c/Hemoglobin.total in Blood (4548-4, http://loinc.org)",
	})

	raw, err = os.ReadFile("testdata/hl7-Patient-example.json")
	require.NoError(t, err)
	lines, err = Preview(raw)
	require.NoError(t, err)
	require.Contains(t, lines, Line{Element: "Patient.managingOrganization", Source: "reference=Organization/1"},
		"what stays raw is shown without a field")
}

func TestPreviewRefusesWhatMapRefuses(t *testing.T) {
	t.Parallel()
	_, err := Preview([]byte(`{"resourceType":"Condition"}`))
	var rejected *RejectedError
	require.ErrorAs(t, err, &rejected)
}

// MAPPINGS.md is made from the tables: it must not go stale.
func TestMappingsDocument(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, WriteTables(&b))
	if *update {
		require.NoError(t, os.WriteFile("MAPPINGS.md", b.Bytes(), 0o644))
	}
	want, err := os.ReadFile("MAPPINGS.md")
	require.NoError(t, err)
	require.Equal(t, string(want), b.String(), "MAPPINGS.md is stale: go generate ./mappings")
}

// sides gives the Go types on both sides of a table.
func sides(t cura.ResourceType) (resource, entity reflect.Type) {
	switch t {
	case cura.Patient:
		return reflect.TypeFor[r4.Patient](), reflect.TypeFor[cura.Profile]()
	case cura.AllergyIntolerance:
		return reflect.TypeFor[r4.AllergyIntolerance](), reflect.TypeFor[cura.Allergy]()
	case cura.MedicationRequest:
		return reflect.TypeFor[r4.MedicationRequest](), reflect.TypeFor[cura.Medication]()
	case cura.MedicationStatement:
		return reflect.TypeFor[r4.MedicationStatement](), reflect.TypeFor[cura.Medication]()
	case cura.Observation:
		return reflect.TypeFor[r4.Observation](), reflect.TypeFor[cura.LabObservation]()
	case cura.Encounter:
		return reflect.TypeFor[r4.Encounter](), reflect.TypeFor[cura.Visit]()
	case cura.Consent:
		return reflect.TypeFor[r4.Consent](), reflect.TypeFor[cura.ConsentEntry]()
	}
	return nil, nil
}

// Every row of a table names an element that the mapping decodes and a field that Cura has; every element decoded and every
// field of Cura has a row. So neither the document nor the preview can miss a field that is added.
func TestTablesAreComplete(t *testing.T) {
	t.Parallel()
	require.Len(t, tables(), len(cura.ResourceTypes()))
	ofEvery := []string{"ehr_id", "patient_ehr_id", "version_id", "last_updated", "entered_in_error"}
	// Medication serves two resources: what the one lacks the other has.
	onlyOf := map[string]cura.ResourceType{"intent": cura.MedicationRequest, "reported": cura.MedicationRequest, "effective": cura.MedicationStatement}
	for i, want := range cura.ResourceTypes() {
		table := tables()[i]
		require.Equal(t, want, table.Type)
		resource, entity := sides(table.Type)
		var elements, fields []string
		for _, r := range table.Rows {
			element, _, _ := strings.Cut(r.Element, ".")
			elements = append(elements, element)
			field, _, _ := strings.Cut(r.Field, ".")
			fields = append(fields, field)
			if r.Element != "resourceType" {
				require.True(t, resolves(resource, r.Element), "%s.%s isn't decoded", table.Type, r.Element)
			}
			require.True(t, slices.Contains(ofEvery, r.Field) || resolves(entity, r.Field), "%s has no field %s", table.Into, r.Field)
		}
		for _, name := range jsonNames(resource) {
			if strings.HasPrefix(name, "_") || name == "resourceType" || name == "contained" {
				continue
			}
			require.True(t, slices.ContainsFunc(elements, func(e string) bool { return matches(e, name) }), "%s.%s has no row", table.Type, name)
		}
		for _, name := range jsonNames(entity) {
			if only, ok := onlyOf[name]; ok && only != table.Type && strings.HasPrefix(table.Into, "medications") {
				continue
			}
			require.Contains(t, fields, name, "%s.%s has no row", table.Into, name)
		}
	}
}

// resolves reports whether a path of JSON names leads to a field of a struct.
func resolves(of reflect.Type, path string) bool {
	first, rest, more := strings.Cut(path, ".")
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice && of.Elem().Kind() != reflect.Uint8 {
		of = of.Elem()
	}
	if of.Kind() == reflect.Slice {
		return true // raw JSON: kept whole
	}
	if of.Kind() != reflect.Struct {
		return false
	}
	for f := range of.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && resolves(f.Type, path) {
			return true
		}
		if !f.Anonymous && matches(first, name) {
			return !more || resolves(f.Type, rest)
		}
	}
	return false
}

// jsonNames lists the JSON names of a struct's fields, those of embedded structs among them.
func jsonNames(of reflect.Type) []string {
	var out []string
	for f := range of.Fields() {
		if f.Anonymous {
			out = append(out, jsonNames(f.Type)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		out = append(out, name)
	}
	return out
}

package fhir_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/fhir"
)

// validator is shared by the tests, as it is by all that use it.
var validator = sync.OnceValues(fhir.NewValidator)

func validate(tb testing.TB, raw string) error {
	tb.Helper()
	v, err := validator()
	require.NoError(tb, err)
	return v.Validate([]byte(raw))
}

// issues gives the issues as text.
func issues(tb testing.TB, err error) []string {
	tb.Helper()
	if err == nil {
		return nil
	}
	var invalid *fhir.InvalidError
	require.ErrorAs(tb, err, &invalid)
	require.NotEmpty(tb, invalid.Issues)
	var out []string
	for _, i := range invalid.Issues {
		out = append(out, i.Path+" "+string(i.Code))
	}
	return out
}

const observation = `"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"}`

func TestValidate(t *testing.T) {
	t.Parallel()
	longID := strings.Repeat("e", 90)
	for _, tt := range []struct {
		name, raw string
		want      []string
	}{
		{"valid", `{` + observation + `}`, nil},
		{"null among the given names", `{"resourceType":"Patient","name":[{"given":["A",null],"_given":[null,{"extension":[{"url":"http://x","valueCode":"unknown"}]}]}]}`, nil},
		{"a code that is only an extension", `{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","_code":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"unknown"}]}}]}}`, nil},
		{"a code of a value that is only an extension", `{` + observation + `,"component":[{"code":{"text":"x"},"valueCodeableConcept":{"coding":[{"code":"a"},{"_code":{"extension":[{"url":"http://x","valueCode":"unknown"}]}}]}}]}`, nil},
		{"an empty code", `{` + observation + `,"valueCodeableConcept":{"coding":[{"code":""}]}}`, []string{"Observation.value.codeableConcept.coding[0].code code"}},
		{"a value that is only an extension", `{` + observation + `,"_valueString":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"unknown"}]}}`, nil},
		{"a decimal that is only an extension", `{` + observation + `,"valueQuantity":{"_value":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"unknown"}]},"unit":"mg"}}`, nil},
		{"a category that is only an extension", `{"resourceType":"AllergyIntolerance","patient":{"reference":"Patient/p"},"category":["food",null],"_category":[null,{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"unknown"}]}]}`, nil},
		{"a masked identifier", `{"resourceType":"Patient","identifier":[{"system":"http://hl7.org/fhir/sid/us-ssn","_value":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/rendered-value","valueString":"xxx-xx-0000"}]}}],"_birthDate":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]}}`, nil},
		{"a status that is only an extension", `{"resourceType":"Observation","_status":{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"unknown"}]},"code":{"text":"x"}}`, nil},
		{"an id longer than R4's, as at Epic", `{"resourceType":"Patient","id":"` + longID + `"}`, nil},
		{"an id with an underscore", `{"resourceType":"Patient","id":"a_b"}`, nil},
		{"a reference to an id with an underscore", `{` + observation + `,"subject":{"reference":"Patient/a_b"}}`, nil},
		{"a reference to a long id", `{` + observation + `,"subject":{"reference":"Patient/` + longID + `"}}`, nil},
		{"a version that isn't an id", `{"resourceType":"Patient","meta":{"versionId":"W/\"7\""}}`, nil},
		{"a withdrawn resource without its code", `{"resourceType":"Observation","id":"o","status":"entered-in-error"}`, nil},
		{"a withdrawn allergy without its patient", `{"resourceType":"AllergyIntolerance","verificationStatus":{"coding":[{"code":"entered-in-error"}]}}`, nil},

		{"required elements", `{"resourceType":"Observation","component":[{}]}`, []string{"Observation.code required", "Observation.component[0].code required", "Observation.status required"}},
		{"unknown element", `{` + observation + `,"SecretName":"x","secretName":1}`, []string{"Observation.? unknown-element"}},
		{"unknown element below", `{"resourceType":"Patient","contact":[{"secretName":1}]}`, []string{"Patient.contact[0] unknown-element"}},
		{"unknown resource", `{"resourceType":"SecretName"}`, []string{" resource-type"}},
		{"unknown contained resource", `{"resourceType":"Patient","contained":[{"resourceType":"SecretName"}]}`, []string{"Patient.contained[0] resource-type"}},
		{"no resourceType", `{"id":"secret"}`, []string{" resource-type"}},
		{"date", `{"resourceType":"Patient","birthDate":"secret"}`, []string{"Patient.birthDate date"}},
		{"date that no calendar has", `{"resourceType":"Patient","birthDate":"2001-02-30"}`, []string{"Patient.birthDate date"}},
		{"dateTime without a zone", `{` + observation + `,"effectiveDateTime":"2001-02-03T04:05:06"}`, []string{"Observation.effectiveDateTime date-time"}},
		{"instant", `{` + observation + `,"issued":"2001"}`, []string{"Observation.issued instant"}},
		{"boolean", `{"resourceType":"Patient","active":"secret"}`, []string{"Patient.active boolean"}},
		{"decimal in quotes", `{` + observation + `,"valueQuantity":{"value":"5.4"}}`, []string{"Observation.valueQuantity.value decimal"}},
		{"code outside its value set", `{"resourceType":"Patient","gender":"secret"}`, []string{"Patient.gender binding"}},
		{"two values", `{` + observation + `,"valueString":"secret","valueBoolean":true}`, []string{"Observation choice"}},
		{"a list where one belongs", `{"resourceType":"Patient","birthDate":["secret"]}`, []string{"Patient.birthDate kind"}},
		{"one where a list belongs", `{"resourceType":"Patient","name":{"family":"secret"}}`, []string{"Patient.name cardinality"}},
		{"text where an object belongs", `{` + observation + `,"subject":"secret"}`, []string{"Observation.subject kind"}},
		{"reference to a type that isn't allowed", `{"resourceType":"Encounter","status":"finished","class":{"code":"AMB"},"subject":{"reference":"Device/secret"}}`, []string{"Encounter.subject reference-type"}},
		{"id of another kind", `{"resourceType":"Patient","id":"sec ret"}`, []string{"Patient.id id"}},
		{"id beyond any length", `{"resourceType":"Patient","id":"` + strings.Repeat("secret", 50) + `"}`, []string{"Patient.id id"}},

		{"modifier extension", `{"resourceType":"Patient","modifierExtension":[{"url":"http://secret","valueBoolean":true}]}`, []string{"Patient.modifierExtension modifier"}},
		{"modifier extension below", `{` + observation + `,"component":[{"code":{"text":"x"},"modifierExtension":[{"url":"http://secret","valueBoolean":true}]}]}`, []string{"Observation.component[0].modifierExtension modifier"}},
		{"modifier extension in disguise", `{"resourceType":"Patient","modifier\u0045xtension":[{"url":"http://secret","valueBoolean":true}]}`, []string{"Patient.modifierExtension modifier"}},
		{"implicit rules", `{"resourceType":"Patient","implicitRules":"http://secret"}`, []string{"Patient.implicitRules modifier"}},
		{"a member twice", `{"resourceType":"Patient","gender":"male","gender":"female"}`, []string{"Patient.gender duplicate-member"}},
		{"a member twice in other spellings", `{"resourceType":"Patient","birthDate":"2001","birth\u0044ate":"2002"}`, []string{"Patient.birthDate duplicate-member"}},
		{"a member in capitals", `{"resourceType":"Patient","BirthDate":"2001"}`, []string{"Patient.? unknown-element"}},
		{"a null character", `{"resourceType":"Patient","name":[{"text":"secret\u0000"}]}`, []string{"Patient.name[0].text encoding"}},
		{"half a surrogate pair", `{"resourceType":"Patient","name":[{"text":"secret\ud83d"}]}`, []string{"Patient.name[0].text encoding"}},
		{"broken UTF-8", "{\"resourceType\":\"Patient\",\"name\":[{\"text\":\"\xff\"}]}", []string{" encoding"}},
		{"an exponent beyond reason", `{` + observation + `,"valueQuantity":{"value":1e999999999}}`, []string{"Observation.valueQuantity.value decimal"}},
		{"digits beyond reason", `{` + observation + `,"valueQuantity":{"value":1` + strings.Repeat("0", 80) + `}}`, []string{"Observation.valueQuantity.value decimal"}},
		{"broken JSON", `{"resourceType":"Patient","id":"secret"`, []string{" json"}},
		{"not JSON", `secret`, []string{" json"}},
		{"not an object", `["secret"]`, []string{" kind"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := validate(t, tt.raw)
			require.Equal(t, tt.want, issues(t, err))
			if err != nil {
				require.NotContains(t, strings.ToLower(err.Error()), "secret", "no value may be told")
			}
		})
	}
}

func TestValidateHostile(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"nested objects": `{"resourceType":"Patient","extension":` + strings.Repeat(`[{"url":"u","extension":`, 50_000) + "1",
		"nested arrays":  strings.Repeat("[", 1_000_000),
		"many members":   `{"resourceType":"Patient"` + strings.Repeat(`,"a":1`, 10_000) + `}`,
		"many faults":    `{"resourceType":"Patient","name":[` + strings.Repeat(`{"use":"x"},`, 5_000) + `{}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := issues(t, validate(t, raw))
			require.NotEmpty(t, got)
			require.LessOrEqual(t, len(got), 20)
		})
	}
}

func TestInvalidText(t *testing.T) {
	t.Parallel()
	err := &fhir.InvalidError{Issues: []fhir.Issue{{Path: "Patient.gender", Code: fhir.CodeBinding}, {Code: fhir.CodeJSON}}}
	require.EqualError(t, err,
		"not a valid R4 resource: Patient.gender: isn't a code of the required value set; the resource: the JSON isn't well formed")
}

// seeds are the golden inputs of the mappings.
func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	files, err := filepath.Glob("../../mappings/testdata/*.json")
	require.NoError(tb, err)
	var out [][]byte
	for _, f := range files {
		if strings.HasSuffix(f, ".golden.json") {
			continue
		}
		raw, err := os.ReadFile(f)
		require.NoError(tb, err)
		out = append(out, raw)
	}
	return out
}

func FuzzValidate(f *testing.F) {
	for _, raw := range seeds(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := validate(t, string(raw))
		if err == nil {
			head, err := fhir.Head(raw)
			require.NoError(t, err)
			require.NotEmpty(t, head.Type)
			_, err = fhir.Hash(raw)
			require.NoError(t, err, "what is valid has a content hash")
			return
		}
		var invalid *fhir.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.NotEmpty(t, invalid.Issues)
	})
}

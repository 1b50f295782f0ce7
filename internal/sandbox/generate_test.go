package sandbox

import (
	"crypto/sha256"
	"encoding/json"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func generated(t *testing.T, seed uint64, patients, resources int) *store {
	t.Helper()
	s, err := newStore()
	require.NoError(t, err)
	require.NoError(t, generate(t.Context(), s, seed, patients, resources))
	return s
}

func digest(t *testing.T, s *store) [32]byte {
	t.Helper()
	h := sha256.New()
	for _, typ := range s.types() {
		require.NoError(t, s.each(typ, func(_ string, raw json.RawMessage) bool {
			_, err := h.Write(raw)
			require.NoError(t, err)
			return true
		}))
	}
	return [32]byte(h.Sum(nil))
}

func TestSameSeedSameBytes(t *testing.T) {
	t.Parallel()
	first, second := digest(t, generated(t, 7, 12, 600)), digest(t, generated(t, 7, 12, 600))
	require.Equal(t, first, second)
	require.NotEqual(t, digest(t, generated(t, 7, 12, 0)), digest(t, generated(t, 8, 12, 0)))
}

func TestResourcesAsMany(t *testing.T) {
	t.Parallel()
	s := generated(t, 1, 3, 5000)
	total := 0
	for _, n := range s.counts() {
		total += n
	}
	require.Equal(t, 5000, total)
	require.Equal(t, 3, s.counts()["Patient"])
	resting := 0
	for _, block := range s.vault.sealed {
		resting += len(block)
	}
	require.Less(t, resting, 5000*300, "they rest compressed")
}

// The generated hospital has the traps of DOMAIN §6 and §7, so that they are met before a real one brings them.
func TestTraps(t *testing.T) {
	t.Parallel()
	s := generated(t, 3, 40, 0)
	text := map[string]string{}
	for _, typ := range s.types() {
		require.NoError(t, s.each(typ, func(_ string, raw json.RawMessage) bool {
			require.True(t, json.Valid(raw))
			text[typ] += string(raw) + "\n"
			return true
		}))
	}
	tests := map[string][]string{
		"Patient": {
			`"use":"usual"`, `"use":"maiden"`, `"use":"old"`, `"use":"nickname"`, `"suffix":\["Jr."`, `"name":\[\{"text":"[^"]+"\}\]`, `Żurawska`,
			`"period":\{"end":"2009-06-30"\}`, `"birthDate":"\d{4}"`, `"birthDate":"\d{4}-\d{2}"`, `"deceasedBoolean":true`, `"deceasedDateTime"`,
			`"active":false`, `"replaced-by"`, `"type":"replaces"`, `fhir/sid/us-ssn","value":"9\d\d-\d\d-\d{4}"`, `nhs-number","value":"999\d{7}"`,
			`"_value":\{"extension"`, `"value":"00412000"`, `"code":"MR"`,
		},
		"AllergyIntolerance":  {`"716186003"`, `"entered-in-error"`},
		"MedicationRequest":   {`rxnorm`, `"intent":"order"`},
		"MedicationStatement": {`rxnorm`, `"effectivePeriod":\{"start":"\d{4}-\d{2}"\}`, `"status":"entered-in-error"`},
		"Observation": {
			`"4548-4"`, `"59261-8"`, `"comparator":"<"`, `"comparator":">"`, `"dataAbsentReason"`, `LAB-4711`, `"valueString"`,
			`"valueCodeableConcept"`, `"valueBoolean"`, `"valueRange"`, `"valueRatio"`, `"85354-9"`, `"8480-6"`, `"8462-4"`, `"mm\[Hg\]"`,
			`"referenceRange"`, `"interpretation"`, `"status":"preliminary"`, `"status":"corrected"`, `"status":"entered-in-error"`,
			`"value":\d+\.\d0,`,
		},
		"Encounter": {`"code":"AMB"`, `"code":"EMER"`, `"code":"IMP"`, `"participant"`, `"status":"in-progress"`},
		"Consent":   {`"OPTIN"`, `"OPTOUT"`, `"status":"inactive"`, `"type":"deny"`, `"status":"entered-in-error"`},
	}
	for typ, patterns := range tests {
		for _, p := range patterns {
			require.Regexp(t, p, text[typ], "%s should have %s", typ, p)
		}
	}
	numbers := regexp.MustCompile(`19\.5\.1","value":"(\d+)"`).FindAllStringSubmatch(text["Patient"], -1)
	require.Len(t, numbers, 40)
	distinct := map[string]bool{}
	for _, n := range numbers {
		distinct[n[1]] = true
	}
	require.Len(t, distinct, 40, "each patient has a medical record number of their own")
}

// NHS Data Dictionary: the last digit is a check digit, modulus 11.
func TestNHSNumber(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for n := range 500 {
		number := nhsNumber(n)
		require.Len(t, number, 10)
		sum := 0
		for i, c := range number[:9] {
			sum += (10 - i) * int(c-'0')
		}
		require.Equal(t, (11-sum%11)%11, int(number[9]-'0'))
		require.False(t, seen[number])
		seen[number] = true
	}
}

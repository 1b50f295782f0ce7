package ehr_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
)

// The cases are from SMART App Launch 2.2, "Scopes for requesting FHIR Resources", both versions.
func TestParseScope(t *testing.T) {
	t.Parallel()
	cases := map[string]ehr.Scope{
		"system/Patient.rs":     {Context: "system", Type: "Patient", Permissions: "rs"},
		"system/Patient.r":      {Context: "system", Type: "Patient", Permissions: "r"},
		"system/*.cruds":        {Context: "system", Type: "*", Permissions: "cruds"},
		"system/Patient.read":   {Context: "system", Type: "Patient", Permissions: "rs"},
		"system/Patient.write":  {Context: "system", Type: "Patient", Permissions: "cud"},
		"system/*.*":            {Context: "system", Type: "*", Permissions: "cruds"},
		"patient/Condition.s":   {Context: "patient", Type: "Condition", Permissions: "s"},
		"user/Encounter.c":      {Context: "user", Type: "Encounter", Permissions: "c"},
		"system/Patient.rs?a=b": {Context: "system", Type: "Patient", Permissions: "rs", Params: "a=b"},
	}
	for text, want := range cases {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			got, ok := ehr.ParseScope(text)
			require.True(t, ok)
			require.Equal(t, want, got)
		})
	}
	for _, text := range []string{
		"", "openid", "offline_access", "launch/patient", "system/Patient", "system/Patient.", "system/.rs", "system/Patient.sr",
		"system/Patient.rr", "system/Patient.rx", "system/patient.rs", "other/Patient.rs", "system/Pat ient.rs", "system/Patient.READ",
	} {
		_, ok := ehr.ParseScope(text)
		require.False(t, ok, text)
	}
}

func TestScopeCovers(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ read, search, ofAnother bool }{
		"system/Patient.read":     {true, true, false},
		"system/Patient.rs":       {true, true, false},
		"system/Patient.r":        {true, false, false},
		"system/Patient.s":        {false, true, false},
		"system/Patient.write":    {false, false, false},
		"system/*.read":           {true, true, true},
		"system/*.*":              {true, true, true},
		"patient/Patient.rs":      {false, false, false},
		"system/Patient.rs?x=y":   {true, true, false},
		"system/Patientology.rs":  {false, false, false},
		"system/Patient.cruds":    {true, true, false},
		"system/Observation.read": {false, false, true},
	}
	for text, want := range cases {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			s, ok := ehr.ParseScope(text)
			require.True(t, ok)
			require.Equal(t, want.read, s.Covers(cura.Patient, ehr.ActionRead))
			require.Equal(t, want.search, s.Covers(cura.Patient, ehr.ActionSearch))
			require.Equal(t, want.ofAnother, s.Covers(cura.Observation, ehr.ActionRead))
		})
	}
}

func TestScopeStringHidesParameters(t *testing.T) {
	t.Parallel()
	s, ok := ehr.ParseScope("system/Observation.rs?patient=p-4711")
	require.True(t, ok)
	require.Equal(t, "system/Observation.rs (in part)", s.String())
}

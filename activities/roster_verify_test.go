package activities

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/store"
)

// TestNobodyIsTakenForSomebody: what an EHR gives for a person counts only where identifier and particulars agree.
func TestNobodyIsTakenForSomebody(t *testing.T) {
	t.Parallel()
	patient := func(id, system, value, family, birth string) string {
		return `{"resourceType":"Patient","id":"` + id + `","identifier":[{"system":"` + system + `","value":"` + value + `"}],
			"name":[{"family":"` + family + `"}],"birthDate":"` + birth + `"}`
	}
	ada := store.Enrolment{Value: "0100", Family: "Lovelace", BirthDate: "1815-12-10"}
	same := patient("a", "urn:mrn", "0100", "Lovelace", "1815-12-10")
	tests := map[string]struct {
		person  store.Enrolment
		gave    []string
		state   store.EnrolmentState
		because string
	}{
		"the very person":                        {ada, []string{same}, store.EnrolmentFound, ""},
		"the same twice, on two pages":           {ada, []string{same, same}, store.EnrolmentFound, ""},
		"with blanks around the identifier":      {ada, []string{patient("a", "urn:mrn", "   0100", "Lovelace", "1815-12-10")}, store.EnrolmentFound, ""},
		"with another family name since":         {ada, []string{patient("a", "urn:mrn", "0100", "King", "1815-12-10")}, store.EnrolmentFound, ""},
		"known by the year alone":                {store.Enrolment{Value: "0100", BirthDate: "1815"}, []string{same}, store.EnrolmentFound, ""},
		"known by family name alone":             {store.Enrolment{Value: "0100", Family: "LOVELACE"}, []string{same}, store.EnrolmentFound, ""},
		"beside a near match":                    {ada, []string{patient("b", "urn:mrn", "0101", "Lovelace", "1815-12-10"), same}, store.EnrolmentFound, ""},
		"nobody":                                 {ada, nil, store.EnrolmentNotFound, "no patient of the EHR carries the identifier"},
		"a near match alone":                     {ada, []string{patient("b", "urn:mrn", "0101", "Lovelace", "1815-12-10")}, store.EnrolmentNotFound, "1 that are similar"},
		"leading zeros count":                    {ada, []string{patient("b", "urn:mrn", "100", "Lovelace", "1815-12-10")}, store.EnrolmentNotFound, "similar"},
		"the value in another system":            {ada, []string{patient("b", "urn:ssn", "0100", "Lovelace", "1815-12-10")}, store.EnrolmentNotFound, "similar"},
		"one that can't be read":                 {ada, []string{`{"resourceType":"Patient","id":"a","birthDate":17}`}, store.EnrolmentNotFound, "can't be read"},
		"an outcome, no patient":                 {ada, []string{`{"resourceType":"OperationOutcome","issue":[]}`}, store.EnrolmentNotFound, "no patient"},
		"another birth date":                     {ada, []string{patient("a", "urn:mrn", "0100", "Lovelace", "1915-12-10")}, store.EnrolmentAmbiguous, "the birth date or the family name is not"},
		"nothing to compare":                     {ada, []string{patient("a", "urn:mrn", "0100", "", "")}, store.EnrolmentAmbiguous, "nothing but the identifier"},
		"two who carry it":                       {ada, []string{same, patient("b", "urn:mrn", "0100", "Lovelace", "1815-12-10")}, store.EnrolmentAmbiguous, "2 patients"},
		"two who carry it, one of them unlike":   {ada, []string{same, patient("b", "urn:mrn", "0100", "Byron", "1788-01-22")}, store.EnrolmentAmbiguous, "2 patients"},
		"one who was merged into the other":      {ada, []string{mergedPatient, same}, store.EnrolmentFound, ""},
		"one who was merged and the other away":  {ada, []string{mergedPatient}, store.EnrolmentNotFound, "merged into another"},
		"an identifier that isn't used any more": {ada, []string{oldIdentifier}, store.EnrolmentNotFound, "similar"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var entries []fhir.Entry
			for _, raw := range tc.gave {
				head, err := fhir.Head([]byte(raw))
				require.NoError(t, err)
				entries = append(entries, fhir.Entry{Resource: []byte(raw), Type: head.Type, ID: head.ID})
			}
			got := verify(tc.person, cura.MatchStrategy{By: cura.MatchMRN, System: "urn:mrn"}, nil, entries)
			require.Equal(t, tc.state, got.State, got.Reason)
			require.Contains(t, got.Reason, tc.because)
			require.Equal(t, tc.state == store.EnrolmentFound, got.EHRID == "a")
			for _, phi := range []string{"0100", "Lovelace", "1815", "Byron"} {
				require.NotContains(t, got.Reason, phi)
			}
		})
	}
}

const (
	mergedPatient = `{"resourceType":"Patient","id":"m","active":false,"identifier":[{"system":"urn:mrn","value":"0100"}],
		"birthDate":"1815-12-10","link":[{"type":"replaced-by","other":{"reference":"Patient/a"}}]}`
	oldIdentifier = `{"resourceType":"Patient","id":"o","identifier":[{"use":"old","system":"urn:mrn","value":"0100"}],"birthDate":"1815-12-10"}`
)

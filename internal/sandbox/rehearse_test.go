package sandbox

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRehearse(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Patients: 5})
	before := s.Counts()
	for range 2 { // ids are new in each run
		since := formatInstant(s.store.nextInstant(s.now()))
		done, err := s.Rehearse(t.Context())
		require.NoError(t, err)
		require.Equal(t, []int{4, 4, 2}, []int{done.Changed, done.Added, done.Invalidated})
		require.Len(t, done.Done, 10)
		touched := map[string]bool{}
		for _, c := range done.Done {
			require.False(t, touched[c.Type+"/"+c.ID], "each resource is touched once")
			touched[c.Type+"/"+c.ID] = true
			r := fetch(t, s, "/"+c.Type+"/"+c.ID)
			require.Equal(t, http.StatusOK, r.status)
			require.Equal(t, c.Version, r.get(t, "meta", "versionId"))
			require.GreaterOrEqual(t, r.get(t, "meta", "lastUpdated"), since)
			switch {
			case c.Verb == "changed" && c.Type == "Observation":
				require.Equal(t, "amended", r.get(t, "status"))
				old := fetch(t, s, "/"+c.Type+"/"+c.ID+"/_history/1")
				require.NotEqual(t, old.get(t, "valueQuantity", "value"), r.get(t, "valueQuantity", "value"))
			case c.Verb == "changed":
				require.Equal(t, "Patient", c.Type)
				require.Contains(t, string(r.raw), `"system":"phone","value":"+1-555-01`)
			case c.Verb == "invalidated" && strings.HasSuffix(c.ID, "-invalid"):
				require.Nil(t, r.get(t, "status"), "an Observation needs a status (R4)")
			case c.Verb == "invalidated":
				require.Equal(t, "entered-in-error", r.get(t, "status"))
			default:
				require.Equal(t, "created", c.Verb)
			}
		}
	}
	after := s.Counts()
	require.Equal(t, before["Observation"]+6, after["Observation"])
	require.Equal(t, before["Encounter"]+2, after["Encounter"])
	require.Equal(t, before["AllergyIntolerance"]+2, after["AllergyIntolerance"])
	require.Equal(t, before["Patient"], after["Patient"])
}

// It must work on any data folder.
func TestRehearseOnLittle(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		data   []string
		faults Faults
		want   []int // changed, added, invalidated
	}{
		{"a patient alone", []string{`{"resourceType":"Patient","id":"p"}`}, Faults{}, []int{1, 4, 1}},
		{"telecom without a phone", []string{`{"resourceType":"Patient","id":"p","telecom":[{"system":"email","value":"x"}]}`}, Faults{}, []int{1, 4, 1}},
		{"nothing known", []string{`{"resourceType":"Basic","id":"b"}`}, Faults{}, []int{0, 0, 0}},
		{"no patient", []string{`{"resourceType":"Observation","id":"o","status":"final","valueQuantity":{"value":5.9}}`}, Faults{}, []int{1, 0, 0}},
		{
			"an allergy",
			[]string{`{"resourceType":"AllergyIntolerance","id":"a","clinicalStatus":{"text":"x"},"verificationStatus":{"text":"y"}}`},
			Faults{},
			[]int{0, 0, 1},
		},
		{
			"types that are not served",
			[]string{`{"resourceType":"Patient","id":"p"}`},
			Faults{MissingTypes: []string{"Observation", "Encounter"}},
			[]int{1, 1, 0},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serving(t, tt.data...)
			knobs(t, s, tt.faults)
			r := control(t, s, http.MethodPost, "/rehearse", "")
			require.Equal(t, http.StatusOK, r.status)
			var done Rehearsal
			require.NoError(t, json.Unmarshal(r.raw, &done))
			require.Equal(t, tt.want, []int{done.Changed, done.Added, done.Invalidated}, "%+v", done)
			for _, typ := range s.store.types() {
				require.NoError(t, s.store.each(typ, func(_ string, raw json.RawMessage) bool {
					require.True(t, json.Valid(raw), "%s", raw)
					return true
				}))
			}
		})
	}
}

func TestNextDigit(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"5.40": "5.41", "9": "8", "-1": "-2", "120": "121"} {
		require.Equal(t, want, string(nextDigit([]byte(in))))
	}
}

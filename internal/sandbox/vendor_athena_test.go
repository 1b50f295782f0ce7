package sandbox

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAthenaDemands(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "athena")
	clientOf(t, s).check(t, []refusal{
		{"DOMAIN §0.1: [[patient],[_id]], else 400 forbidden", "/Observation", 400, "forbidden"},
		{"DOMAIN §0.1: [[patient],[_id]]", "/Observation?patient=p1", 200, ""},
		{"DOMAIN §0.1: [[patient],[_id]]", "/Observation?_id=o1", 200, ""},
		{"DOMAIN §0.1: subject is neither", "/Observation?subject=Patient/p1", 400, "forbidden"},
		{"DOMAIN §0.1: no system search", "/Observation?_lastUpdated=ge2024", 400, "forbidden"},
		{"DOMAIN §0.1: Patient", "/Patient", 400, "forbidden"},
		{"DOMAIN §0.1: Patient", "/Patient?identifier=007", 200, ""},
		{"DOMAIN §2: intent=order", "/MedicationRequest?patient=p1", 400, "forbidden"},
		{"DOMAIN §2: intent=order", "/MedicationRequest?patient=p1&intent=plan", 400, "forbidden"},
		{"DOMAIN §2: intent=order", "/MedicationRequest?patient=p1&intent=order", 200, ""},
	})
}

// DOMAIN §4: every FHIR call needs ah-practice.
func TestAthenaPractice(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Vendor: "athena", Patients: 1, Resources: 200})
	header := clientOf(t, s).header
	patient := s.store.first("Patient")
	for value, status := range map[string]int{
		"Organization/a-1.Practice-195900": 200, "Organization/a-1.Practice-1": 200, "": 403, "195900": 403, "Organization/a-1.Practice-x": 403,
	} {
		for _, path := range []string{"/Patient/" + patient, "/Observation?patient=" + patient} {
			u, err := url.Parse(s.BaseURL() + path)
			require.NoError(t, err)
			query := u.Query()
			query.Set(practiceParam, value)
			u.RawQuery = query.Encode()
			r := send(t, plain(), http.MethodGet, u.String(), nil, header)
			require.Equal(t, status, r.status, value)
			if status == 200 && path[1] == 'O' {
				next, err := url.Parse(r.link(t, "next"))
				require.NoError(t, err)
				require.Equal(t, value, next.Query().Get(practiceParam), "a next link has it")
				require.Equal(t, 200, send(t, plain(), http.MethodGet, next.String(), nil, header).status)
			}
		}
	}
	require.Equal(t, http.StatusOK, send(t, plain(), http.MethodGet, s.BaseURL()+"/metadata", nil, nil).status, "metadata needs none")
}

func TestAthenaScopes(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "athena")
	r := askToken(t, s, "")
	require.Equal(t, http.StatusBadRequest, r.status, "DOMAIN §1: scopes are sent explicitly")
	require.Equal(t, "invalid_scope", r.get(t, "error"))
	ask := func(scope string) response {
		return send(t, plain(), http.MethodGet, s.BaseURL()+"/Observation?patient=p1&ah-practice=Organization/a-1.Practice-1", nil, bearerFor(t, s, scope))
	}
	r = ask("system/Observation.r")
	require.Equal(t, http.StatusForbidden, r.status, "DOMAIN §1: .r alone is refused on search")
	require.Contains(t, string(r.raw), "Invalid scope")
	require.Equal(t, http.StatusOK, ask("system/Observation.rs").status)
}

func TestAthenaShows(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Vendor: "athena", Patients: 1, Resources: 200})
	c := clientOf(t, s)
	patient := s.store.first("Patient")
	r := c.get("/Observation?_count=1000&_lastUpdated=gt2999&patient=" + patient)
	require.Len(t, r.ids(t), 50, "DOMAIN §2: small pages")
	require.NotContains(t, r.link(t, "self"), "_lastUpdated", "DOMAIN §2: P3")
	require.NotContains(t, string(r.raw), "versionId", "DOMAIN §2: P3")
	require.NotContains(t, string(r.raw), `"meta"`)
	require.Empty(t, c.get("/Patient/"+patient).header.Get("ETag"))
}

// DOMAIN §4: clients don't write by FHIR.
func TestAthenaTakesNoWrites(t *testing.T) {
	t.Parallel()
	w := writerOf(t, "athena")
	for _, typ := range writableTypes() {
		r := w.post(typ, w.note("n"))
		require.Equal(t, http.StatusMethodNotAllowed, r.status)
		require.Equal(t, "not-supported", r.issue(t))
	}
	require.Equal(t, http.StatusMethodNotAllowed, w.do(http.MethodPut, "/Consent/x", w.consent()).status)
	require.Len(t, w.server.Arrivals(), 5)
}

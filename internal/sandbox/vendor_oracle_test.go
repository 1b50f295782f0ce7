package sandbox

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOracleDemands(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "oracle")
	clientOf(t, s).check(t, []refusal{
		{"DOMAIN §0.1: patient, subject or _id", "/Observation", 400, "required"},
		{"DOMAIN §0.1: also beside _lastUpdated", "/Observation?_lastUpdated=ge2024-01-01T00:00:00Z", 400, "required"},
		{"DOMAIN §0.1: patient", "/Observation?patient=p1", 200, ""},
		{"DOMAIN §0.1: subject", "/Observation?subject=Patient/p1", 200, ""},
		{"DOMAIN §0.1: _id", "/Observation?_id=o1", 200, ""},
		{"DOMAIN §0.1: every clinical type", "/Consent", 400, "required"},
		{"DOMAIN §0.1: not a clinical type", "/Organization", 404, "not-supported"},
		{"DOMAIN §0.1: Patient", "/Patient", 400, "required"},
		{"DOMAIN §0.1: Patient", "/Patient?_id=p1", 200, ""},
		{"DOMAIN §0.1: Patient", "/Patient?identifier=urn:mrn%7C007", 200, ""},
		{"DOMAIN §2: ge", "/Observation?patient=p1&_lastUpdated=ge2024", 200, ""},
		{"DOMAIN §2: ge and le", "/Observation?patient=p1&_lastUpdated=ge2024&_lastUpdated=le2025", 200, ""},
		{"DOMAIN §2: ge and le only", "/Observation?patient=p1&_lastUpdated=gt2024", 400, "invalid"},
		{"DOMAIN §2: ge and le only", "/Observation?patient=p1&_lastUpdated=2024", 400, "invalid"},
		{"DOMAIN §2: MedicationRequest with a time part", "/MedicationRequest?patient=p1&_lastUpdated=ge2024-01-01", 400, "invalid"},
		{"DOMAIN §2: MedicationRequest with a time part", "/MedicationRequest?patient=p1&_lastUpdated=ge2024-01-01T00:00:00Z", 200, ""},
		{"DOMAIN §2: not date and _lastUpdated", "/Observation?patient=p1&_lastUpdated=ge2024&date=ge2023", 400, "invalid"},
		{"DOMAIN §2: date alone", "/Observation?patient=p1&date=ge2023", 200, ""},
	})
}

func TestOraclePages(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Vendor: "oracle", Patients: 1, Resources: 600})
	c := clientOf(t, s)
	patient := s.store.first("Patient")
	r := c.get("/Observation?patient=" + patient + "&_count=500&_lastUpdated=ge2024&_sort=_lastUpdated")
	require.Len(t, r.ids(t), 200, "DOMAIN §2: at most 200 Observations a page")
	require.NotContains(t, r.link(t, "self"), "_sort", "DOMAIN §2: _sort is unsupported")
	require.Contains(t, r.link(t, "self"), "_lastUpdated")
	require.Greater(t, r.bundle(t).Entry[0].Resource.Meta.LastUpdated, r.bundle(t).Entry[199].Resource.Meta.LastUpdated, "DOMAIN §2: the latest first")
	require.Regexp(t, `^`+s.BaseURL()+`\?_page=`, r.link(t, "next"), "DOMAIN §2: at the base's root")
	require.Len(t, c.get("/Observation?patient="+patient).ids(t), 50, "DOMAIN §2: 50 by default")

	// DOMAIN §2: the first page ignores _count and has all of social-history.
	pages := c.walk("/Observation?category=social-history&_count=10&patient=" + patient)
	require.Len(t, pages, 1)
	require.Greater(t, len(pages[0]), 50)

	_, most := oraclePageSize("DocumentReference")
	require.Equal(t, 100, most, "DOMAIN §2")
	many := start(t, Config{Vendor: "oracle", Patients: 30})
	require.Len(t, clientOf(t, many).get("/Patient?gender=male,female&family=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z&_count=100").ids(t), 20, "DOMAIN §2: Patient 20")
}

// DOMAIN §2: application/fhir+json, or 406.
func TestOracleAccept(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "oracle")
	header := clientOf(t, s).header
	for accept, status := range map[string]int{
		"application/fhir+json": 200, "text/html, application/fhir+json; q=0.9": 200, "application/json": 406, "*/*": 406, "": 406,
	} {
		r := send(t, plain(), http.MethodGet, s.BaseURL()+"/Patient/p1", nil, map[string]string{"Authorization": header["Authorization"], "Accept": accept})
		require.Equal(t, status, r.status, accept)
	}
}

func TestOracleTokens(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "oracle")
	for asked, granted := range map[string]string{
		// DOMAIN §1: explicit scopes of version 1, no wildcard, every type listed.
		"system/Patient.read system/Observation.read": "system/Patient.read system/Observation.read",
		"system/Patient.read system/*.read":           "system/Patient.read",
		"system/Patient.read system/Observation.rs":   "system/Patient.read",
	} {
		r := askToken(t, s, asked)
		require.Equal(t, granted, r.get(t, "scope"))
		require.EqualValues(t, "570", r.get(t, "expires_in"), "DOMAIN §0.4")
	}
	for _, asked := range []string{"", "system/*.read", "system/Patient.rs"} {
		r := askToken(t, s, asked)
		require.Equal(t, http.StatusBadRequest, r.status)
		require.Equal(t, "invalid_scope", r.get(t, "error"))
	}
	h := bearerFor(t, s, "system/Patient.read")
	h["Accept"] = "application/fhir+json"
	require.Equal(t, http.StatusForbidden, send(t, plain(), http.MethodGet, s.BaseURL()+"/Observation?patient=p1", nil, h).status)
}

// DOMAIN §5: what can't be rendered is 500 fatal/required.
func TestOraclePoison(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "oracle")
	knobs(t, s, Faults{Poison: []string{"Observation/o1"}})
	r := clientOf(t, s).get("/Observation?patient=p1")
	require.Equal(t, http.StatusInternalServerError, r.status)
	require.Equal(t, "required", r.issue(t))
	require.Contains(t, string(r.raw), `"severity":"fatal"`)
}

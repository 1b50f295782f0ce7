package sandbox

import (
	"net/http"
	"strings"
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

// DOMAIN §4, the write matrix.
func TestOracleWrites(t *testing.T) {
	t.Parallel()
	w := writerOf(t, "oracle")
	one := `{"attachment":{"contentType":"application/pdf","data":"SGVsbG8="}}`
	of := func(contentType string) edit {
		return having("content", `[{"attachment":{"contentType":"`+contentType+`","data":"SGVsbG8="}}]`)
	}
	bedside := having("category", `[{"coding":[{"code":"encounter-diagnosis"}]}]`)
	w.checkWrites(t, []writeRule{
		{"a pdf", "DocumentReference", w.note("n", of("application/pdf")), 201, "", ""},
		{"a proprietary type", "DocumentReference", w.note("n", having("type", `{"coding":[{"system":"urn:local","code":"1"}]}`)), 201, "", ""},
		{"period.end", "DocumentReference", w.note("n", having("context", `{}`)), 422, "required", "context.period.end"},
		{"period.end with its time", "DocumentReference", w.note("n", having("context", `{"period":{"end":"2026-03-01"}}`)), 422, "required", "context.period.end"},
		{"one content", "DocumentReference", w.note("n", having("content", "["+one+","+one+"]")), 422, "business-rule", "content"},
		{"a known kind", "DocumentReference", w.note("n", of("image/png")), 422, "value", "contentType"},
		{"with charset", "DocumentReference", w.note("n", of("text/plain")), 422, "value", "charset"},
		{"status", "DocumentReference", w.note("n", having("status", `"superseded"`)), 422, "business-rule", "status"},
		{"no draft", "DocumentReference", w.note("n", having("docStatus", `"preliminary"`)), 422, "business-rule", "docStatus"},
		{"a type", "DocumentReference", w.note("n", lacking("type")), 422, "required", "type"},
		{"modifiers are fatal", "DocumentReference", w.note("n", having("implicitRules", `"urn:x"`)), 422, "extension", "implicitRules"},
		{"an encounter diagnosis", "Condition", w.diagnosis(bedside), 201, "", ""},
		{"needs an encounter", "Condition", w.diagnosis(bedside, lacking("encounter")), 422, "required", "encounter"},
		{"is active", "Condition", w.diagnosis(bedside, having("clinicalStatus", `{"coding":[{"code":"resolved"}]}`)), 422, "business-rule", "clinicalStatus"},
		{"a problem", "Condition", w.diagnosis(lacking("encounter")), 201, "", ""},
		{"no other category", "Condition", w.diagnosis(lacking("category")), 422, "business-rule", "category"},
		{"modifiers are fatal", "Condition", w.diagnosis(having("modifierExtension", `[{"url":"urn:x"}]`)), 422, "extension", "modifierExtension"},
		{"a procedure", "Procedure", w.procedure(), 201, "", ""},
		{"is completed", "Procedure", w.procedure(having("status", `"in-progress"`)), 422, "business-rule", "status"},
		{"Consent is read only", "Consent", w.consent(), 405, "not-supported", ""},
	})

	// Content-Length 0; what isn't supported is dropped without a word; If-None-Exist is ignored.
	note := w.note("n", having("meta", `{"tag":[{"code":"mine"}]}`), having("relatesTo", `[{"code":"replaces"}]`))
	r := w.post("DocumentReference", note, "Prefer", "return=representation")
	require.Equal(t, http.StatusCreated, r.status, "body: %s", r.raw)
	require.Equal(t, "0", r.header.Get("Content-Length"))
	require.Equal(t, `W/"1"`, r.header.Get("ETag"))
	target := r.written(t)
	stored := string(w.get("/" + target).raw)
	for _, dropped := range []string{"identifier", "tag", "relatesTo"} {
		require.NotContains(t, stored, dropped)
	}
	require.Contains(t, stored, `"encounter"`)
	other := w.post("DocumentReference", note, "If-None-Exist", "identifier=n")
	require.Equal(t, http.StatusCreated, other.status)
	require.NotEqual(t, target, other.written(t))
	require.NotContains(t, capabilities(t, w.get("/metadata"))["DocumentReference"], "identifier")

	// If-Match is needed, and stale it is 409.
	_, id, _ := strings.Cut(target, "/")
	put := func(status string, header ...string) response {
		return w.do(http.MethodPut, "/"+target, w.note("n", having("id", `"`+id+`"`), having("docStatus", `"`+status+`"`)), header...)
	}
	require.Equal(t, http.StatusPreconditionFailed, put("amended").status)
	r = put("amended", "If-Match", `W/"1"`)
	require.Equal(t, http.StatusOK, r.status, "body: %s", r.raw)
	require.Empty(t, r.raw)
	require.Equal(t, `W/"2"`, r.header.Get("ETag"))
	r = put("final", "If-Match", `W/"1"`)
	require.Equal(t, http.StatusConflict, r.status)
	require.Equal(t, "conflict", r.issue(t))
	withdrawn := w.note("n", having("id", `"`+id+`"`), having("status", `"entered-in-error"`), having("content", `[{"attachment":{"title":"x"}}]`))
	require.Equal(t, http.StatusOK, w.do(http.MethodPut, "/"+target, withdrawn, "If-Match", `W/"2"`).status)
	problem := w.post("Condition", w.diagnosis()).written(t)
	_, id, _ = strings.Cut(problem, "/")
	withdrawn = w.diagnosis(having("id", `"`+id+`"`), lacking("clinicalStatus"), lacking("category"), having("verificationStatus", `{"coding":[{"code":"entered-in-error"}]}`))
	require.Equal(t, http.StatusOK, w.do(http.MethodPut, "/"+problem, withdrawn, "If-Match", `W/"1"`).status)
	procedure := w.post("Procedure", w.procedure()).written(t)
	require.Equal(t, http.StatusMethodNotAllowed, w.do(http.MethodPut, "/"+procedure, w.procedure(), "If-Match", `W/"1"`).status)
}

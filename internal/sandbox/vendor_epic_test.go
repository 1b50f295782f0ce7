package sandbox

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEpicDemands(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "epic", `{"resourceType":"Condition","id":"c1","category":[{"coding":[{"code":"problem-list-item"}]}],"subject":{"reference":"Patient/p1"}}`)
	p1, o1 := s.store.servedID("Patient", "p1"), s.store.servedID("Observation", "o1")
	clientOf(t, s).check(t, []refusal{
		{"DOMAIN §0.1: no system search", "/Patient", 400, "required"},
		{"DOMAIN §0.1: demographics or _id", "/Patient?_id=" + p1, 200, ""},
		{"DOMAIN §0.1: demographics or _id", "/Patient?identifier=007", 200, ""},
		{"DOMAIN §0.1: demographics or _id", "/Patient?family=Garcia&birthdate=1980-01-01", 200, ""},
		{"DOMAIN §0.1: no system search", "/AllergyIntolerance", 400, "required"},
		{"DOMAIN §0.1: no system search", "/AllergyIntolerance?_lastUpdated=ge2024", 400, "required"},
		{"DOMAIN §0.1: patient", "/AllergyIntolerance?patient=" + p1, 200, ""},
		{"DOMAIN §0.1: no system search", "/Observation?category=laboratory", 400, "required"},
		{"DOMAIN §0.1: category or code", "/Observation?patient=" + p1, 400, "required"},
		{"DOMAIN §0.1: category or code", "/Observation?code=4548-4&patient=" + p1, 200, ""},
		{"DOMAIN §0.1: category or code", "/Observation?subject:Patient=" + p1 + "&category=laboratory", 200, ""},
		{"DOMAIN §0.1: by id", "/Observation?_id=" + o1, 200, ""},
		{"DOMAIN §2: one category per request", "/Observation?category=laboratory,survey&patient=" + p1, 400, "invalid"},
		{"DOMAIN §2: one category per request", "/Observation?category=laboratory&category=survey&patient=" + p1, 400, "invalid"},
		{"DOMAIN §2: with its system", "/Observation?category=http://terminology.hl7.org/CodeSystem/observation-category%7Claboratory&patient=" + p1, 200, ""},
		{"DOMAIN §2: not offered", "/Observation?category=procedure&patient=" + p1, 400, "invalid"},
		{"DOMAIN §2: not offered", "/Observation?category=therapy&patient=" + p1, 400, "invalid"},
		{"DOMAIN §2: not offered", "/Observation?category=activity&patient=" + p1, 400, "invalid"},
		{"DOMAIN §2: smartdata is", "/Observation?category=smartdata&patient=" + p1, 200, ""},
		{"DOMAIN §2: Condition by category", "/Condition?patient=" + p1, 400, "required"},
		{"DOMAIN §2: Condition by category", "/Condition?category=problem-list-item&patient=" + p1, 200, ""},
		{"DOMAIN §2: Condition by category", "/Condition?category=problem-list-item,infection&patient=" + p1, 400, "invalid"},
	})
}

func TestEpicShows(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "epic", `{"resourceType":"DocumentReference","id":"d1",`+cTime+`,"subject":{"reference":"Patient/p1"}}`)
	c := clientOf(t, s)
	p1 := s.store.servedID("Patient", "p1")

	// DOMAIN §0.2: _lastUpdated is offered on DocumentReference only, spelled _lastupdated; elsewhere it is ignored.
	r := c.get("/Observation?category=laboratory&_lastUpdated=gt2030&patient=" + p1)
	require.Len(t, r.ids(t), 2)
	require.NotContains(t, r.link(t, "self"), "_lastUpdated")
	require.Empty(t, c.get("/DocumentReference?_lastupdated=gt2030&patient="+p1).ids(t))
	require.Len(t, c.get("/DocumentReference?_lastUpdated=ge2024-03-09&patient="+p1).ids(t), 1)
	listed := capabilities(t, c.get("/metadata"))
	require.Contains(t, listed["DocumentReference"], "_lastupdated")
	require.NotContains(t, listed["Observation"], "_lastupdated")

	// DOMAIN §2: an OperationOutcome entry comes always: 4119 with results, 4101 as a warning without.
	for query, want := range map[string][2]string{
		"/Observation?category=laboratory&patient=" + p1: {"4119", "information"},
		"/Observation?category=survey&patient=" + p1:     {"4101", "warning"},
		"/Patient?identifier=nobody":                     {"4101", "warning"},
	} {
		r = c.get(query)
		entries := r.bundle(t).Entry
		last := entries[len(entries)-1]
		require.Equal(t, "outcome", last.Search.Mode)
		require.Equal(t, "OperationOutcome", last.Resource.ResourceType)
		require.Contains(t, string(r.raw), `"code":"`+want[0]+`"`)
		require.Contains(t, string(r.raw), `"severity":"`+want[1]+`"`)
	}

	// DOMAIN §0.2, §6: neither meta.versionId nor meta.lastUpdated, hence no ETag and no versions.
	read := c.get("/Patient/" + p1)
	require.Equal(t, http.StatusOK, read.status)
	require.NotContains(t, string(read.raw), "versionId")
	require.NotContains(t, string(read.raw), "lastUpdated")
	require.Empty(t, read.header.Get("ETag"))
	require.Equal(t, http.StatusNotFound, c.get("/Patient/"+p1+"/_history").status)
	require.NoError(t, s.Put([]byte(`{"resourceType":"Patient","id":"`+p1+`","meta":{"tag":[{"code":"kept"}]}}`)))
	sameBytes(t, `{"resourceType":"Patient","id":"`+p1+`","meta":{"tag":[{"code":"kept"}]}}`, c.get("/Patient/"+p1).raw)
}

// DOMAIN §3, §6: ids may exceed 64 characters and are case-sensitive; references name them.
func TestEpicLongIDs(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Vendor: "epic", Patients: 30})
	c := clientOf(t, s)
	truth := source(t, s)
	long, all := 0, 0
	for typ, resources := range truth {
		for id, raw := range resources {
			all++
			if len(id) <= 64 {
				require.Equal(t, strings.ToLower(id), id)
				continue
			}
			long++
			require.NotEqual(t, strings.ToLower(id), id)
			require.Equal(t, http.StatusNotFound, c.get("/"+typ+"/"+strings.ToLower(id)).status)
			_ = rewriteReferences(raw, func(ref string) (string, bool) {
				to, target, _ := strings.Cut(ref, "/")
				require.Contains(t, truth[to], target)
				return "", false
			})
		}
		if long > 40 {
			break
		}
	}
	require.Greater(t, long*5, all, "about a third")

	s = hospitalOf(t, "epic", `{"resourceType":"Bundle","type":"transaction","entry":[`+
		`{"fullUrl":"urn:uuid:1-2","resource":{"resourceType":"Patient"}},`+
		`{"resource":{"resourceType":"Observation","id":"born","subject":{"reference":"urn:uuid:1-2"}}}]}`)
	truth = source(t, s)
	subject := getText(get(truth["Observation"][s.store.servedID("Observation", "born")], "subject"), "reference")
	require.Contains(t, truth["Patient"], strings.TrimPrefix(subject, "Patient/"), "also a reference within a Bundle")
}

func TestEpicTokens(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "epic")
	knobs(t, s, Faults{RefuseTypes: []string{"Consent"}})
	for _, asked := range []string{"", "system/Patient.rs", "launch"} {
		r := askToken(t, s, asked)
		require.EqualValues(t, "3600", r.get(t, "expires_in"), "DOMAIN §0.4")
		granted, ok := r.get(t, "scope").(string)
		require.True(t, ok)
		require.Contains(t, granted, "system/Observation.read", "DOMAIN §1: what is registered, whatever was asked, in v1 spelling")
		require.NotContains(t, granted, "Consent")
	}
	// DOMAIN §1: an unregistered API is 403 with an empty body.
	r := clientOf(t, s).get("/Consent?patient=x")
	require.Equal(t, http.StatusForbidden, r.status)
	require.Empty(t, r.raw)
}

const garcia = `{"resourceType":"Patient","id":"garcia","identifier":[{"system":"urn:mrn","value":"1"}],"name":[{"family":"Garcia","given":["Daniela","Maria"]}],"gender":"female","birthDate":"1980-05-17"}`

// DOMAIN §2: Patient.search is a scored match, near ones come back; $match with onlyCertainMatches gives who is certain.
func TestEpicMatch(t *testing.T) {
	t.Parallel()
	s := hospitalOf(
		t, "epic", garcia,
		strings.NewReplacer(`"garcia"`, `"garzia"`, `Garcia`, `Garzia`, `"1"`, `"2"`).Replace(garcia),
		strings.NewReplacer(`"garcia"`, `"other"`, `Garcia`, `Zimmermann`, `Daniela`, `Ute`, `1980-05-17`, `1931-01-02`, `"1"`, `"3"`).Replace(garcia),
	)
	c := clientOf(t, s)
	certain, near := s.store.servedID("Patient", "garcia"), s.store.servedID("Patient", "garzia")
	r := c.get("/Patient?family=garcia&given=daniela&birthdate=1980-05-17")
	require.Equal(t, []string{certain, near}, r.ids(t), "the likeliest first")
	require.Contains(t, string(r.raw), `"valueCode":"certain"`)
	require.Contains(t, string(r.raw), `"score":1.00`)
	require.Equal(t, []string{certain}, c.get("/Patient?identifier="+url.QueryEscape("urn:mrn|1")).ids(t))

	header := map[string]string{"Content-Type": "application/fhir+json", "Authorization": c.header["Authorization"]}
	match := func(parameters string) response {
		body := `{"resourceType":"Parameters","parameter":[` + parameters + `]}`
		return send(t, plain(), http.MethodPost, s.BaseURL()+"/Patient/$match", strings.NewReader(body), header)
	}
	person := `{"name":"resource","resource":` + garcia + `}`
	require.Equal(t, []string{certain, near}, match(person).ids(t))
	only := `,{"name":"onlyCertainMatches","valueBoolean":true}`
	require.Equal(t, []string{certain}, match(person+only).ids(t))
	require.Equal(t, []string{certain}, match(`{"name":"resource","resource":{"resourceType":"Patient","identifier":[{"system":"urn:mrn","value":"1"}]}}`+only).ids(t))
	r = match(`{"name":"resource","resource":{"resourceType":"Patient","name":[{"family":"Nobody"}],"birthDate":"1999-01-01"}}` + only)
	require.Empty(t, r.ids(t))
	require.Contains(t, string(r.raw), `"code":"4101"`)
	for _, parameters := range []string{``, only[1:], `{"name":"resource","resource":{"resourceType":"Patient"}}`, `{"name":"resource","resource":{"resourceType":"Observation"}}`} {
		r = match(parameters)
		require.Equal(t, http.StatusBadRequest, r.status)
		require.Equal(t, "invalid", r.issue(t))
	}
	require.Contains(t, string(c.get("/metadata").raw), `"name":"match"`)
	require.Equal(t, http.StatusUnauthorized, send(t, plain(), http.MethodPost, s.BaseURL()+"/Patient/$match", nil, nil).status)

	generic := hospital(t)
	r = send(t, plain(), http.MethodPost, generic.BaseURL()+"/Patient/$match", strings.NewReader("{}"), bearer(t, generic))
	require.Equal(t, http.StatusNotFound, r.status, "it isn't offered elsewhere")
	require.Equal(t, "not-supported", r.issue(t))
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"garcia", "garzia", 1}, {"müller", "muller", 1}, {"kitten", "sitting", 3}} {
		require.Equal(t, tt.want, distance(tt.a, tt.b))
		require.Equal(t, tt.want, distance(tt.b, tt.a))
	}
}

// DOMAIN §4, the write matrix.
func TestEpicWrites(t *testing.T) {
	t.Parallel()
	w := writerOf(t, "epic")
	pdf := `[{"attachment":{"contentType":"application/pdf","data":"SGVsbG8="}}]`
	two := `[{"attachment":{"contentType":"text/plain","data":"SGVsbG8="}},{"attachment":{"contentType":"application/pdf","data":"SGVsbG8="}}]`
	w.checkWrites(t, []writeRule{
		{"an encounter", "DocumentReference", w.note("n", having("context", `{}`)), 400, "business-rule", "Valid encounter required"},
		{"text/plain only", "DocumentReference", w.note("n", having("content", pdf)), 400, "business-rule", "text/plain"},
		{"docStatus", "DocumentReference", w.note("n", having("docStatus", `"amended"`)), 400, "business-rule", "docStatus"},
		{"a draft", "DocumentReference", w.note("n", having("docStatus", `"preliminary"`)), 201, "", ""},
		{"status", "DocumentReference", w.note("n", having("status", `"superseded"`)), 400, "business-rule", "status"},
		{"no discharge types", "DocumentReference", w.note("n", having("type", `{"coding":[{"code":"18842-5"}]}`)), 400, "business-rule", "type"},
		{"§0.7: no encounter diagnosis", "Condition", w.diagnosis(having("category", `[{"coding":[{"code":"encounter-diagnosis"}]}]`)), 400, "business-rule", "category"},
		{"§0.7: provisional only", "Condition", w.diagnosis(having("verificationStatus", `{"coding":[{"code":"confirmed"}]}`)), 400, "business-rule", "provisional"},
		{"a display or a text", "Condition", w.diagnosis(having("code", `{"coding":[{"code":"I10"}]}`)), 400, "business-rule", "code"},
		{"a note of 450 at most", "Condition", w.diagnosis(having("note", `[{"text":"`+strings.Repeat("x", 451)+`"}]`)), 400, "business-rule", "note"},
		{"no procedures", "Procedure", w.procedure(), 405, "not-supported", ""},
		{"no consents", "Consent", w.consent(), 405, "not-supported", ""},
	})
	require.Len(t, w.server.Written("DocumentReference"), 1)

	// 201 with a relative Location, no ETag, no body; the first attachment only; the same again is a second record.
	for range 2 {
		r := w.post("DocumentReference", w.note("twice", having("content", two)), "If-None-Exist", "identifier=twice", "Prefer", "return=representation")
		require.Equal(t, http.StatusCreated, r.status, "body: %s", r.raw)
		require.Regexp(t, `^DocumentReference/[^/]+$`, r.header.Get("Location"))
		require.Empty(t, r.header.Get("ETag"))
		require.Empty(t, r.raw)
		for _, path := range []string{r.header.Get("Location"), "DocumentReference?patient=p1"} {
			r = w.get("/" + path)
			require.Equal(t, http.StatusForbidden, r.status, "create APIs only")
			require.Empty(t, r.raw)
		}
	}
	written := w.server.Written("DocumentReference")
	require.Len(t, written, 3)
	require.NotContains(t, string(written[2]), "pdf")
	require.Equal(t, http.StatusMethodNotAllowed, w.do(http.MethodPut, "/DocumentReference/x", w.note("n")).status)

	// A problem waits in the reconciliation queue.
	r := w.post("Condition", w.diagnosis())
	require.Equal(t, http.StatusCreated, r.status)
	search := "/Condition?category=problem-list-item&patient=" + strings.TrimPrefix(w.patient, "Patient/")
	require.Empty(t, w.get(search).ids(t))
	require.Equal(t, http.StatusNotFound, w.get("/"+r.header.Get("Location")).status)
	n, err := w.server.FileHeld()
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Len(t, w.get(search).ids(t), 1)

	// Where the hospital's own notes are read, those that were written aren't.
	w = writerTo(t, hospitalOf(t, "epic", `{"resourceType":"DocumentReference","id":"own","subject":{"reference":"Patient/p1"}}`,
		`{"resourceType":"Encounter","id":"e1","subject":{"reference":"Patient/p1"}}`))
	r = w.post("DocumentReference", w.note("n"))
	require.Equal(t, http.StatusForbidden, w.get("/"+r.header.Get("Location")).status)
	require.Len(t, w.get("/DocumentReference?patient="+strings.TrimPrefix(w.patient, "Patient/")).ids(t), 1)
}

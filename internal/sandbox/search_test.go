package sandbox

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	loinc    = `"coding":[{"system":"http://loinc.org","code":"4548-4"}]`
	labs1    = `"category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"laboratory"}]}]`
	vital1   = `"category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs"}]}]`
	aTime    = `"meta":{"versionId":"3","lastUpdated":"2024-03-10T10:00:00.000Z"}`
	bTime    = `"meta":{"versionId":"1","lastUpdated":"2024-03-11T10:00:00.000Z"}`
	cTime    = `"meta":{"versionId":"1","lastUpdated":"2024-03-09T10:00:00.000Z"}`
	patientA = `{"resourceType":"Patient","id":"p1",` + aTime + `,"identifier":[{"system":"urn:mrn","value":"007"},{"value":"bare"}]}`
	patientB = `{"resourceType":"Patient","id":"p2",` + bTime + `,"identifier":[{"system":"urn:other","value":"007"}]}`
)

// hospital is a small EHR whose every resource is known.
func hospital(t *testing.T) *Server {
	t.Helper()
	return serving(t, hospitalData()...)
}

// hospitalData are two patients and what is known of them.
func hospitalData() []string {
	return []string{
		patientA, patientB,
		`{"resourceType":"Observation","id":"o1",` + aTime + `,` + labs1 + `,"code":{` + loinc + `},"subject":{"reference":"Patient/p1"},"identifier":[{"system":"urn:lab","value":"x"}]}`,
		`{"resourceType":"Observation","id":"o2",` + bTime + `,` + vital1 + `,"code":{"coding":[{"system":"http://loinc.org","code":"85354-9"}]},"subject":{"reference":"Patient/p2"}}`,
		`{"resourceType":"Observation","id":"o3",` + cTime + `,` + labs1 + `,"code":{"coding":[{"code":"4548-4"},{"system":"urn:local","code":"A1C"}]},"subject":{"reference":"https://elsewhere.example/fhir/Patient/p1"}}`,
		`{"resourceType":"Observation","id":"o4",` + cTime + `,"code":{"text":"none"},"subject":{"reference":"Group/p1"}}`,
		`{"resourceType":"AllergyIntolerance","id":"a1","category":["food"],"patient":{"reference":"Patient/p1"}}`,
		`{"resourceType":"MedicationRequest","id":"m1","medicationCodeableConcept":{"coding":[{"system":"rx","code":"1"}]},"subject":{"reference":"Patient/p1"}}`,
	}
}

func TestSearchParameters(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	tests := []struct {
		rule, query string
		want        []string
	}{
		{"R4 §3.1.1: all of a type", "Observation", []string{"o1", "o2", "o3", "o4"}},
		{"R4 Observation: patient, by id", "Observation?patient=p1", []string{"o1", "o3"}},
		{"R4 §3.1.1.4.11: reference by Type/id", "Observation?patient=Patient/p1", []string{"o1", "o3"}},
		{"R4 §3.1.1.4.11: reference by address", "Observation?patient=" + url.QueryEscape(s.BaseURL()+"/Patient/p2"), []string{"o2"}},
		{"R4 §3.1.1.4.11: a comma is or", "Observation?patient=p1,p2", []string{"o1", "o2", "o3"}},
		{"R4 §3.1.1.4.11: subject of any type", "Observation?subject=p1", []string{"o1", "o3", "o4"}},
		{"R4 §3.1.1.4.4: modifier of a type", "Observation?subject:Patient=p1", []string{"o1", "o3"}},
		{"R4 §3.1.1.4.11: subject by Type/id", "Observation?subject=Group/p1", []string{"o4"}},
		{"R4 §3.1.1.4.9: several ids", "Observation?_id=o4,o1,nobody", []string{"o1", "o4"}},
		{"R4 §3.1.1.4.9: repeated is and", "Observation?_id=o4,o1&_id=o1", []string{"o1"}},
		{"R4 §3.1.1.4.10: token by code", "Observation?category=laboratory", []string{"o1", "o3"}},
		{
			"R4 §3.1.1.4.10: token by system and code",
			"Observation?category=" + url.QueryEscape("http://terminology.hl7.org/CodeSystem/observation-category|vital-signs"),
			[]string{"o2"},
		},
		{"R4 §3.1.1.4.10: tokens, a comma is or", "Observation?category=laboratory,vital-signs", []string{"o1", "o2", "o3"}},
		{"R4 §3.1.1.4.10: code", "Observation?code=4548-4", []string{"o1", "o3"}},
		{"R4 §3.1.1.4.10: system|code", "Observation?code=http://loinc.org%7C4548-4", []string{"o1"}},
		{"R4 §3.1.1.4.10: |code has no system", "Observation?code=%7C4548-4", []string{"o3"}},
		{"R4 §3.1.1.4.10: system| any code", "Observation?code=urn:local%7C", []string{"o3"}},
		{"R4 §3.1.1.4.9: different parameters are and", "Observation?code=4548-4&patient=p1&_lastUpdated=2024-03-10", []string{"o1"}},
		{"R4 Patient: identifier by value", "Patient?identifier=007", []string{"p1", "p2"}},
		{"R4 Patient: identifier by system|value", "Patient?identifier=urn:mrn%7C007", []string{"p1"}},
		{"R4 Patient: identifier |value", "Patient?identifier=%7Cbare", []string{"p1"}},
		{"DOMAIN §6: leading zeros matter", "Patient?identifier=7", []string{}},
		{"R4 §3.1.1.4.7: _lastUpdated repeated is and", "Observation?_lastUpdated=ge2024-03-10&_lastUpdated=lt2024-03-11", []string{"o1"}},
		{"R4 §3.1.1.4.7: _lastUpdated gt", "Observation?_lastUpdated=gt2024-03-10T10:00:00.000Z", []string{"o2"}},
		{"R4 §3.1.1.4.7: _lastUpdated ge", "Observation?_lastUpdated=ge2024-03-10T10:00:00.000Z", []string{"o1", "o2"}},
		{"R4 §3.1.1.4.9: dates, a comma is or", "Observation?_lastUpdated=2024-03-11,2024-03-10", []string{"o1", "o2"}},
		{"R4 §3.1.1.5.2: _sort", "Observation?_sort=_lastUpdated", []string{"o3", "o4", "o1", "o2"}},
		{"R4 §3.1.1.5.2: _sort downward", "Observation?_sort=-_lastUpdated", []string{"o2", "o1", "o3", "o4"}},
		{"R4 §3.1.1.5.2: _sort by id", "Observation?_sort=_id&_id=o4,o2", []string{"o2", "o4"}},
		{"R4 AllergyIntolerance: category is a code", "AllergyIntolerance?category=food&patient=p1", []string{"a1"}},
		{"R4 MedicationRequest: code is that of the medication", "MedicationRequest?code=rx%7C1", []string{"m1"}},
		{"R4 §3.1.1: nothing found is no error", "Encounter", []string{}},
		{"R4 §3.1.1.3: an empty value is ignored", "Patient?identifier=", []string{"p1", "p2"}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			r := fetch(t, s, "/"+tt.query)
			require.Equal(t, tt.want, r.ids(t))
			require.Equal(t, "searchset", r.get(t, "type"))
			require.Equal(t, len(tt.want), *r.bundle(t).Total)
			for _, e := range r.bundle(t).Entry {
				require.Equal(t, s.BaseURL()+"/"+e.Resource.ResourceType+"/"+e.Resource.ID, e.FullURL) // R4 §2.36.4
			}
			// R4 §3.1.1.1: POST _search with a form means the same.
			typ, query, _ := strings.Cut(tt.query, "?")
			values, err := url.ParseQuery(query)
			require.NoError(t, err)
			require.Equal(t, tt.want, form(t, s.BaseURL()+"/"+typ+"/_search", values, bearer(t, s)).ids(t))
		})
	}
}

func TestSearchRefuses(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	tests := []struct {
		rule, query, prefer string
		status              int
		code                string
	}{
		{"R4 §3.1.1.4.4: a modifier that is not supported", "Observation?code:in=x", "", 400, "not-supported"},
		{"R4 §3.1.1.4.7: no date", "Observation?_lastUpdated=gelast", "", 400, "invalid"},
		{"R4 §3.1.1.5.4: no number", "Observation?_count=many", "", 400, "invalid"},
		{"R4 §3.1.1.5.4: a negative number", "Observation?_count=-1", "", 400, "invalid"},
		{"R4 §3.1.1.3.1: strict handling", "Observation?made-up=1", "handling=strict", 400, "not-supported"},
		{"R4 §3.1.1.3.1: strict handling of a sort", "Observation?_sort=code", "handling=strict", 400, "not-supported"},
		{"R4 §3.1.0.1.5: a type that is not served", "Basic", "", 404, "not-supported"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			r := fetch(t, s, "/"+tt.query, "Prefer", tt.prefer)
			require.Equal(t, tt.status, r.status)
			require.Equal(t, tt.code, r.issue(t))
		})
	}
	h := bearer(t, s)
	h["Content-Type"] = "application/json"
	r := send(t, plain(), http.MethodPost, s.BaseURL()+"/Patient/_search", strings.NewReader("{}"), h)
	require.Equal(t, http.StatusUnsupportedMediaType, r.status, "R4 §3.1.1.1: _search takes a form")
}

// R4 §3.1.1.3.1: an unknown parameter is ignored, and the self link tells what was honoured (DOMAIN §2).
func TestSelfLinkTellsWhatWasHonoured(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	r := fetch(t, s, "/Observation?patient=p1&made-up=1&_sort=code&_lastUpdated=ge2024")
	require.Equal(t, []string{"o1", "o3"}, r.ids(t))
	self, err := url.Parse(r.link(t, "self"))
	require.NoError(t, err)
	require.Equal(t, url.Values{"patient": {"p1"}, "_lastUpdated": {"ge2024"}}, self.Query())
	require.Empty(t, r.link(t, "next"))
}

func TestCount(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	// R4 §3.1.1.5.5 _summary=count and §3.1.1.5.4 _count=0: the total alone.
	for _, query := range []string{"_summary=count", "_count=0"} {
		r := fetch(t, s, "/Observation?"+query)
		require.Equal(t, 4, *r.bundle(t).Total)
		require.Empty(t, r.bundle(t).Entry)
		require.NotContains(t, string(r.raw), `"entry"`, "R4 §2.6.2: an array is never empty")
	}
}

// R4 §3.1.0.1.14 paging: next links are followed to the end; DOMAIN §2: they are opaque and at the base's root.
func TestPaging(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	r := fetch(t, s, "/Observation?_count=3&_sort=_id")
	require.Equal(t, []string{"o1", "o2", "o3"}, r.ids(t))
	require.Equal(t, 4, *r.bundle(t).Total)
	next := r.link(t, "next")
	require.Regexp(t, `^`+s.BaseURL()+`\?_page=[a-z0-9]{20,}$`, next)

	// The search is frozen at its first page: a change in between neither shifts nor repeats a row.
	require.NoError(t, s.Delete("Observation", "o1"))
	require.NoError(t, s.Put([]byte(`{"resourceType":"Observation","id":"o0","code":{"text":"new"}}`)))
	for range 2 { // the same link may be asked for again
		r = fetch(t, s, next)
		require.Equal(t, []string{"o4"}, r.ids(t))
		require.Empty(t, r.link(t, "next"))
	}
	// The token of the page does not stand in for the access token, nor for its scope.
	require.Equal(t, http.StatusUnauthorized, send(t, plain(), http.MethodGet, next, nil, nil).status)
	require.Equal(t, http.StatusForbidden, send(t, plain(), http.MethodGet, next, nil, bearerFor(t, s, "system/Patient.rs")).status)
	require.Equal(t, http.StatusGone, fetch(t, s, "?_page=guessed").status)
	require.Equal(t, http.StatusBadRequest, fetch(t, s, "").status)
}

func TestPagingOfManyRows(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Resources: 1500, Patients: 2})
	want := s.Counts()["Observation"]
	seen := map[string]bool{}
	pages := 0
	for address := s.BaseURL() + "/Observation?_count=5000"; address != ""; pages++ {
		r := fetch(t, s, address)
		ids := r.ids(t)
		require.LessOrEqual(t, len(ids), 1000, "R4 §3.1.1.5.4: a server may give fewer than asked, never more")
		for _, id := range ids {
			require.False(t, seen[id], "no row comes twice")
			seen[id] = true
		}
		require.Equal(t, want, *r.bundle(t).Total)
		address = r.link(t, "next")
	}
	require.Len(t, seen, want)
	require.Equal(t, 2, pages, "of "+strconv.Itoa(want))
}

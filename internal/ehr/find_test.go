package ehr_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/profile"
)

// builtin gives a built-in profile, athena with a practice.
func builtin(t *testing.T, name string) *profile.Profile {
	t.Helper()
	p, err := profile.Builtin(name)
	require.NoError(t, err)
	if len(p.Params) > 0 {
		p, err = p.Fill(map[string]string{"practice": "Organization/a-1.Practice-7"})
		require.NoError(t, err)
	}
	return p
}

func withProfile(p *profile.Profile) func(*ehr.Config) {
	return func(cfg *ehr.Config) { cfg.Profile = p }
}

func ids(entries []fhir.Entry) []string {
	var found []string
	for _, e := range entries {
		found = append(found, e.ID)
	}
	return found
}

// bodies answers as told and keeps what was posted.
type bodies struct {
	mu  sync.Mutex
	got []string
}

func (b *bodies) then(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.got = append(b.got, r.Header.Get("Content-Type")+" "+string(body))
		b.mu.Unlock()
		answer(w, r)
	}
}

func TestFindByIdentifier(t *testing.T) {
	t.Parallel()
	who := ehr.Person{System: "urn:oid:1.2.3", Value: "A,1|2", Family: "Garcia"}
	const identifier = `urn:oid:1.2.3|A\,1\|2`
	found := text(http.StatusOK, searchset(strings.Join([]string{
		match("Patient", "p1"), match("Patient", "p2"), `{"search":{"mode":"outcome"},"resource":{"resourceType":"OperationOutcome"}}`, match("Practitioner", "d1"),
	}, ",")))
	cases := map[string]struct {
		profile      string
		post         http.HandlerFunc // answers POST _search
		posts, reads int
	}{
		"by GET":               {"oracle", nil, 0, 1},
		"by POST":              {"generic", found, 1, 0},
		"no POST, 405":         {"generic", text(http.StatusMethodNotAllowed, ""), 1, 1},
		"no form, 415":         {"generic", text(http.StatusUnsupportedMediaType, ""), 1, 1},
		"no form, 400":         {"generic", text(http.StatusBadRequest, ""), 1, 1},
		"a form passed over":   {"generic", text(http.StatusOK, searchset(match("Patient", "anybody"), link("self", "Patient?_count=20"))), 1, 1},
		"a token that is late": {"generic", nil, 2, 0},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			var posted bodies
			if test.posts == 2 {
				test.post = refuse(h, "token-2", found)
			}
			if test.post != nil {
				h.on("/fhir/Patient/_search", posted.then(test.post))
			}
			h.on("/fhir/Patient", found)
			entries, err := h.client(t, withProfile(builtin(t, test.profile))).FindPatients(t.Context(), who)
			require.NoError(t, err)
			require.Equal(t, []string{"p1", "p2"}, ids(entries))

			form := url.Values{"identifier": {identifier}, "_count": {"20"}}
			require.Len(t, posted.got, test.posts)
			for i, body := range posted.got {
				require.Equal(t, "application/x-www-form-urlencoded "+form.Encode(), body)
				require.Empty(t, h.asked("/fhir/Patient/_search")[i].URL.RawQuery, "no identifier in the URL")
			}
			require.Len(t, h.asked("/fhir/Patient"), test.reads)
			for _, r := range h.asked("/fhir/Patient") {
				require.Equal(t, form, r.URL.Query())
			}
		})
	}
}

func TestFindByName(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	_, err := h.client(t, withProfile(builtin(t, "oracle"))).FindPatients(t.Context(), ehr.Person{Family: "García", Given: "Ana", BirthDate: "1961-02-03"})
	require.NoError(t, err)
	require.Equal(t, url.Values{"family": {"García"}, "given": {"Ana"}, "birthdate": {"1961-02-03"}, "_count": {"20"}}, h.asked("/fhir/Patient")[0].URL.Query())
}

func TestFindByMatch(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	var posted bodies
	h.on("/fhir/Patient/$match", posted.then(text(http.StatusOK, searchset(match("Patient", "p1")))))
	entries, err := h.client(t, withProfile(builtin(t, "epic"))).FindPatients(t.Context(), ehr.Person{
		System: "urn:oid:1.2.3", Value: "MRN-1", Family: "García", Given: "Ana Maria", BirthDate: "1961-02-03", Gender: "female",
	})
	require.NoError(t, err)
	require.Equal(t, []string{"p1"}, ids(entries))
	contentType, body, _ := strings.Cut(posted.got[0], " ")
	require.Equal(t, "application/fhir+json", contentType)
	require.JSONEq(t, `{"resourceType":"Parameters","parameter":[
		{"name":"resource","resource":{"resourceType":"Patient","identifier":[{"system":"urn:oid:1.2.3","value":"MRN-1"}],
			"name":[{"family":"García","given":["Ana","Maria"]}],"gender":"female","birthDate":"1961-02-03"}},
		{"name":"onlyCertainMatches","valueBoolean":true},
		{"name":"count","valueInteger":20}]}`, body)
	require.Empty(t, h.asked("/fhir/Patient/$match")[0].URL.RawQuery)
}

func TestFindFollowsAFewPages(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", func(w http.ResponseWriter, r *http.Request) {
		page := 1
		_, _ = fmt.Sscan(r.URL.Query().Get("page"), &page)
		text(http.StatusOK, searchset(match("Patient", fmt.Sprint("p", page)), link("next", fmt.Sprintf("?page=%d", page+1))))(w, r)
	})
	entries, err := h.client(t, withProfile(builtin(t, "oracle"))).FindPatients(t.Context(), ehr.Person{System: "urn:mrn", Value: "1"})
	require.NoError(t, err)
	require.Equal(t, []string{"p1", "p2", "p3", "p4", "p5"}, ids(entries))
}

// TestFindFails looks for the person in every error.
func TestFindFails(t *testing.T) {
	t.Parallel()
	garcia := ehr.Person{System: "urn:oid:1.2.3", Value: "MRN-12345", Family: "Garcia", Given: "Ana", BirthDate: "1961-02-03"}
	says := outcome("error", "required", "Patient.name.where(family='Garcia')")
	cases := map[string]struct {
		profile string
		who     ehr.Person
		answer  http.HandlerFunc
		kind    fault.Kind
	}{
		"nothing known":       {"oracle", ehr.Person{}, nil, fault.Data},
		"no system":           {"oracle", ehr.Person{Value: "MRN-12345"}, nil, fault.Data},
		"a family name alone": {"epic", ehr.Person{Family: "Garcia"}, nil, fault.Data},
		"refused":             {"oracle", garcia, text(400, says), fault.Config},
		"refused both ways":   {"generic", garcia, text(400, says), fault.Config},
		"no $match":           {"epic", garcia, text(404, says), fault.Unsupported},
		"$match refused":      {"epic", garcia, text(422, says), fault.Config},
		"forbidden":           {"epic", garcia, text(403, ""), fault.Scope},
		"throttled":           {"generic", garcia, text(429, "", "Retry-After", "3"), fault.Throttled},
		"in trouble":          {"epic", garcia, text(500, "Garcia"), fault.Transient},
		"everybody comes":     {"oracle", garcia, text(200, searchset(match("Patient", "p1"), link("self", "Patient?_count=20"))), fault.Unsupported},
		"broken":              {"epic", garcia, text(200, `{"resourceType":"Bundle","entry":Garcia}`), fault.Protocol},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			for _, path := range []string{"/fhir/Patient", "/fhir/Patient/_search", "/fhir/Patient/$match"} {
				if test.answer != nil {
					h.on(path, test.answer)
				}
			}
			entries, err := h.client(t, withProfile(builtin(t, test.profile))).FindPatients(t.Context(), test.who)
			requireFault(t, err, test.kind)
			require.Empty(t, entries)
			for _, word := range []string{"Garcia", "Ana", "MRN-12345", "1961"} {
				require.NotContains(t, err.Error(), word)
			}
		})
	}
}

package ehr_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

func TestSearchRequest(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	c := h.client(t, func(cfg *ehr.Config) { cfg.PageSize = 50 })
	vienna := time.FixedZone("", 2*60*60)
	params := url.Values{"category": {"laboratory"}, "_lastUpdated": {"le2026-06-02"}}

	_, err := c.Search(t.Context(), ehr.Query{
		Type: cura.Observation, Since: time.Date(2026, 6, 1, 1, 30, 0, 987_654_321, vienna), Params: params,
	})
	require.NoError(t, err)
	_, err = c.Search(t.Context(), ehr.Query{Type: cura.Observation, Count: 7})
	require.NoError(t, err)

	asked := h.asked("/fhir/Observation")
	require.Len(t, asked, 2)
	require.Equal(t, url.Values{
		"category": {"laboratory"}, "_lastUpdated": {"le2026-06-02", "ge2026-05-31T23:30:00.987Z"}, "_count": {"50"},
	}, asked[0].URL.Query())
	require.Equal(t, url.Values{"_count": {"7"}}, asked[1].URL.Query())
	require.Equal(t, url.Values{"category": {"laboratory"}, "_lastUpdated": {"le2026-06-02"}}, params, "the caller's values are its own")
	require.Equal(t, "application/fhir+json", asked[0].Header.Get("Accept"))
	require.Equal(t, "Bearer token-1", asked[0].Header.Get("Authorization"))
	require.Equal(t, "cura-ehr-sync", asked[0].Header.Get("User-Agent"))
	require.Regexp(t, "^[0-9a-f]{16}$", asked[0].Header.Get("X-Request-Id"))
	require.NotEqual(t, asked[0].Header.Get("X-Request-Id"), asked[1].Header.Get("X-Request-Id"))
}

// TestSearchWindow: both bounds are closed at the server, and Until is open, so windows that touch share nothing.
func TestSearchWindow(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	from := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	_, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Observation, Since: from, Until: from.Add(time.Hour), IDsOnly: true})
	require.NoError(t, err)
	require.Equal(t, url.Values{
		"_lastUpdated": {"ge2026-06-01T00:00:00.000Z", "le2026-06-01T00:59:59.999Z"}, "_elements": {"id"}, "_count": {"500"},
	}, h.asked("/fhir/Observation")[0].URL.Query())
}

// TestProfileOnTheWire: what a vendor wants with every request goes with every request under the FHIR base, and nowhere
// else.
func TestProfileOnTheWire(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	p := *builtin(t, "athena")
	p.Headers = map[string]string{"X-Practice": "7"}
	next := h.URL + "/fhir/Observation?page=2"
	h.on("/fhir/Observation", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("page") {
			text(http.StatusOK, searchset(""))(w, r)
			return
		}
		text(http.StatusOK, searchset("", link("self", "Observation?patient=p1"), link("next", next)))(w, r)
	})
	c := h.client(t, withProfile(&p))
	page, err := c.Search(t.Context(), ehr.Query{Type: cura.Observation, Params: url.Values{"patient": {"p1"}}, Count: 5000})
	require.NoError(t, err)
	require.Empty(t, page.Dropped, "the practice isn't a parameter of the search")
	_, err = c.Search(t.Context(), ehr.Query{Type: cura.Observation, Next: page.Next})
	require.NoError(t, err)
	_, err = c.FindPatients(t.Context(), ehr.Person{System: "urn:mrn", Value: "1"})
	require.NoError(t, err)

	const practice = "Organization/a-1.Practice-7"
	for _, r := range h.asked("") {
		if r.URL.Path == "/token" {
			require.Empty(t, r.URL.RawQuery)
			require.Empty(t, r.Header.Get("X-Practice"))
			continue
		}
		require.Equal(t, practice, r.URL.Query().Get("ah-practice"), r.URL.Path)
		require.Equal(t, "7", r.Header.Get("X-Practice"))
	}
	first := h.asked("/fhir/Observation")[0].URL.Query()
	require.Equal(t, url.Values{"patient": {"p1"}, "_count": {"50"}, "ah-practice": {practice}}, first, "no more a page than the profile allows")

	next += "&ah-practice=Organization%2Fother"
	h.on("/fhir/Patient", text(http.StatusOK, searchset("", link("next", next))))
	page, err = c.Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	_, err = c.Search(t.Context(), ehr.Query{Type: cura.Patient, Next: page.Next})
	require.NoError(t, err)
	last := h.asked("/fhir/Observation")[2]
	require.Equal(t, "page=2&ah-practice=Organization%2Fother", last.URL.RawQuery, "a link that has it stays as it is")
}

func TestCount(t *testing.T) {
	t.Parallel()
	total := func(n int, entries string, links ...string) http.HandlerFunc {
		return text(http.StatusOK, strings.Replace(searchset(entries, links...), `"type"`, fmt.Sprintf(`"total":%d,"type"`, n), 1))
	}
	cases := map[string]struct {
		answer http.HandlerFunc
		want   int
		ok     bool
		kind   fault.Kind
	}{
		"counted":                {total(41, "", link("self", "Observation?_lastUpdated=ge2026&_summary=count&_elements=id")), 41, true, ""},
		"none":                   {total(0, ""), 0, true, ""},
		"refused":                {text(400, outcome("error", "not-supported")), 0, false, ""},
		"refused, 501":           {text(501, ""), 0, false, ""},
		"_summary is ignored":    {total(41, match("Observation", "o1")), 0, false, ""},
		"no total":               {text(http.StatusOK, searchset("")), 0, false, ""},
		"the bound is ignored":   {total(41, "", link("self", "Observation?_summary=count")), 0, false, ""},
		"_summary isn't shown":   {total(41, "", link("self", "Observation?_lastUpdated=ge2026")), 0, false, ""},
		"a total below zero":     {total(-1, ""), 0, false, ""},
		"forbidden":              {text(403, ""), 0, false, fault.Scope},
		"in trouble":             {text(502, ""), 0, false, fault.Transient},
		"refused just now":       {text(400, outcome("error", "lock-error")), 0, false, fault.Transient},
		"wrong base":             {text(404, ""), 0, false, fault.Unsupported},
		"a sign-on page instead": {text(200, "<html></html>"), 0, false, fault.Protocol},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Observation", test.answer)
			n, ok, err := h.client(t).Count(t.Context(), ehr.Query{Type: cura.Observation, Since: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), IDsOnly: true})
			if test.kind == "" {
				require.NoError(t, err)
			} else {
				requireFault(t, err, test.kind)
			}
			require.Equal(t, test.want, n)
			require.Equal(t, test.ok, ok)
			require.Equal(t, url.Values{"_lastUpdated": {"ge2026-01-01T00:00:00.000Z"}, "_summary": {"count"}, "_count": {"1"}}, h.asked("/fhir/Observation")[0].URL.Query())
		})
	}
	_, _, err := newHospital(t).client(t).Count(t.Context(), ehr.Query{Type: "../Patient"})
	requireFault(t, err, fault.Config)
}

func TestSearchRefusesTypes(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	c := h.client(t)
	for _, typ := range []cura.ResourceType{"", "patient", "../Patient", "Patient/_search", "Patient?x=1"} {
		_, err := c.Search(t.Context(), ehr.Query{Type: typ})
		requireFault(t, err, fault.Config)
	}
	require.Empty(t, h.asked(""))
}

func TestSearchPage(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	entries := strings.Join([]string{
		match("Patient", "p1"),
		`{"resource":{"resourceType":"Patient","id":"p2"}}`,
		match("Patient", "p1"),
		`{"search":{"mode":"include"},"resource":{"resourceType":"Practitioner","id":"d1"}}`,
		`{"search":{"mode":"outcome"},"resource":{"resourceType":"OperationOutcome","issue":[{"severity":"warning","code":"informational"}]}}`,
		`{"search":{"mode":"match"},"resource":{"resourceType":"OperationOutcome"}}`,
		`{"search":{"mode":"match"},"fullUrl":"urn:uuid:1"}`,
	}, ",")
	body := strings.Replace(searchset(entries), `"type"`, `"total":41,"type"`, 1)
	h.on("/fhir/Patient", text(http.StatusOK, body, "Date", "Mon, 23 Nov 2026 16:27:03 GMT"))

	page, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	var ids []string
	for _, e := range page.Entries {
		ids = append(ids, e.ID)
	}
	require.Equal(t, []string{"p1", "p2", "p1", ""}, ids, "repeats and entries without a resource are served too")
	require.Equal(t, 1, page.Included)
	require.Equal(t, 2, page.Outcomes)
	require.Equal(t, 41, *page.Total)
	require.Equal(t, time.Date(2026, 11, 23, 16, 27, 3, 0, time.UTC), page.ServerTime)
	require.Empty(t, page.Next)
	require.Empty(t, page.Dropped, "without a self link nothing is known")
}

func TestSearchWithoutTotalOrDate(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil // net/http adds none then
		text(http.StatusOK, searchset(match("Patient", "p1")))(w, r)
	})
	page, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	require.Nil(t, page.Total)
	require.Zero(t, page.ServerTime)
}

func TestSearchDropped(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		self string
		want []string
	}{
		"all shown":         {"Patient?_lastUpdated=ge2026&gender=female&_count=1", nil},
		"another case":      {"Patient?_lastupdated=ge2026&GENDER=female", nil},
		"count isn't shown": {"Patient?_lastUpdated=ge2026&gender=female", nil},
		"bound is dropped":  {"Patient?gender=female", []string{"_lastUpdated"}},
		"all are dropped":   {"Patient", []string{"_lastUpdated", "gender"}},
		"no self":           {"", nil},
		"self isn't a URL":  {"%zz", nil},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			links := []string{}
			if test.self != "" {
				links = append(links, link("self", test.self))
			}
			h.on("/fhir/Patient", text(http.StatusOK, searchset("", links...)))
			page, err := h.client(t).Search(t.Context(), ehr.Query{
				Type: cura.Patient, Since: time.Now(), Params: url.Values{"gender": {"female"}, "_sort": {"_lastUpdated"}}, IDsOnly: true,
			})
			require.NoError(t, err)
			require.Equal(t, test.want, page.Dropped, "_count, _elements and _sort change no result")
		})
	}
}

func TestSearchOversizeResource(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"resourceType":"Bundle","type":"searchset","entry":[%s,{"resource":{"resourceType":"Patient","id":"large","text":{"div":"`, match("Patient", "p1"))
		_, _ = w.Write([]byte(strings.Repeat("x", 20<<20)))
		_, _ = fmt.Fprintf(w, `"}}},%s]}`, match("Patient", "p2"))
	})
	page, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	require.Len(t, page.Entries, 3)
	require.True(t, page.Entries[1].Oversize)
	require.Equal(t, "large", page.Entries[1].ID)
	require.Greater(t, page.Entries[1].Size, int64(20<<20))
	require.Empty(t, page.Entries[1].Resource)
	require.Equal(t, "p2", page.Entries[2].ID)
}

func gzipped(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write([]byte(body))
		_ = z.Close()
	}
}

func TestSearchGzip(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", gzipped(searchset(match("Patient", "p1"))))
	page, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	require.Equal(t, "p1", page.Entries[0].ID)
	require.Equal(t, "gzip", h.asked("/fhir/Patient")[0].Header.Get("Accept-Encoding"))
}

func TestSearchPageCap(t *testing.T) {
	t.Parallel()
	body := searchset(match("Patient", "p1") + strings.Repeat(" ", 100_000))
	cases := map[string]struct {
		answer http.HandlerFunc
		limit  int64
		fits   bool
	}{
		"just the cap":      {text(http.StatusOK, body), int64(len(body)), true},
		"one byte over":     {text(http.StatusOK, body), int64(len(body)) - 1, false},
		"small but inflate": {gzipped(body), 50_000, false},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient", test.answer)
			_, err := h.client(t, func(cfg *ehr.Config) { cfg.MaxPage = test.limit }).Search(t.Context(), ehr.Query{Type: cura.Patient})
			if test.fits {
				require.NoError(t, err)
				return
			}
			requireFault(t, err, fault.Protocol)
			require.ErrorIs(t, err, ehr.ErrPageTooLarge)
		})
	}
}

func TestSearchAnswerIsNoSearchset(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		body   string
		kind   fault.Kind
		detail string
	}{
		"HTML":           {"\n<!DOCTYPE html><html><title>Sign on</title></html>", fault.Protocol, "an HTML page"},
		"HTML, bare":     {"<HTML><body>portal</body></HTML>", fault.Protocol, "an HTML page"},
		"XML":            {`<?xml version="1.0"?><Bundle xmlns="http://hl7.org/fhir"/>`, fault.Protocol, "XML"},
		"nothing":        {"", fault.Protocol, "an empty body"},
		"text":           {"service unavailable", fault.Protocol, "something else"},
		"an array":       {"[]", fault.Protocol, "something else"},
		"broken":         {`{"resourceType":"Bundle","type":"searchset","entry":[}`, fault.Protocol, ""},
		"cut short":      {`{"resourceType":"Bundle","type":"searchset","entry":[`, fault.Transient, ""},
		"a resource":     {`{"resourceType":"Patient","id":"p1"}`, fault.Protocol, "Patient"},
		"other JSON":     {`{"error":"not here"}`, fault.Protocol, ""},
		"another Bundle": {`{"resourceType":"Bundle","type":"history"}`, fault.Protocol, "type searchset"},
		"an outcome":     {`{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"throttled"}]}`, fault.Throttled, "issue throttled"},
		"a refusal":      {`{"resourceType":"OperationOutcome","issue":[{"severity":"fatal","code":"not-supported"}]}`, fault.Unsupported, "issue not-supported (fatal)"},
		"a remark":       {`{"resourceType":"OperationOutcome","issue":[{"severity":"information","code":"informational"}]}`, fault.Protocol, "type searchset"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient", text(http.StatusOK, test.body))
			_, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient})
			f := requireFault(t, err, test.kind)
			require.Contains(t, f.Detail, test.detail)
			require.Equal(t, "searching Patient", f.Op)
		})
	}
}

func TestSearchByteOrderMark(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", text(http.StatusOK, "\xef\xbb\xbf \n"+searchset(match("Patient", "p1"))))
	page, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	require.Len(t, page.Entries, 1)
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			elsewhere, h := newHospital(t), newHospital(t)
			h.on("/fhir/Patient", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, elsewhere.URL+r.URL.RequestURI(), status)
			})
			_, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient})
			f := requireFault(t, err, fault.Protocol)
			require.Contains(t, f.Fix, "redirects aren't followed")
			require.Empty(t, elsewhere.asked(""))
		})
	}
}

func TestSearchBrokenConnection(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", halfAnswer)
	_, err := h.client(t).Search(t.Context(), ehr.Query{Type: cura.Patient})
	requireFault(t, err, fault.Transient)
}

func TestSearchSlowAnswer(t *testing.T) {
	t.Parallel()
	// Long enough for discovery and the token on a busy machine.
	quick := ehr.Timeouts{Header: time.Second, BodyGrace: time.Second, MinRate: 1 << 40}
	cases := map[string]struct {
		answer http.HandlerFunc
		detail string
	}{
		"no headers": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "didn't answer in time"},
		"stalled body": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"resourceType":"Bundle",`))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "too slowly"},
		"dribbling body": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{`))
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
			}
		}, "too slowly"},
	}
	for name, test := range cases {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				t.Parallel()
				h := newHospitalOver(t, protocol)
				c := h.client(t, func(cfg *ehr.Config) { cfg.Timeouts = quick })
				h.on("/fhir/Patient", test.answer)
				_, err := c.Search(t.Context(), ehr.Query{Type: cura.Patient})
				f := requireFault(t, err, fault.Transient)
				require.Contains(t, f.Detail, test.detail)
				require.Equal(t, protocol, h.asked("/fhir/Patient")[0].Proto)
			})
		}
	}
}

func TestSearchOverHTTP2(t *testing.T) {
	t.Parallel()
	h := newHospitalOver(t, "HTTP/2.0")
	h.on("/fhir/Patient", refuse(h, "token-2", text(http.StatusOK, searchset(match("Patient", "p1"), link("next", "/fhir/more")))))
	h.on("/fhir/more", gzipped(searchset(match("Patient", "p2"))))
	ids, _, err := pages(t, h.client(t), cura.Patient)
	require.NoError(t, err)
	require.Equal(t, []string{"p1", "p2"}, ids)
	for _, r := range h.asked("") {
		require.Equal(t, "HTTP/2.0", r.Proto)
	}
}

func TestSearchCancelled(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	ctx, cancel := contextWithCancel(t)
	h.on("/fhir/Patient", func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	_, err := h.client(t).Search(ctx, ehr.Query{Type: cura.Patient})
	f := requireFault(t, err, fault.Transient)
	require.Contains(t, f.Detail, "cancelled")
	require.ErrorIs(t, err, context.Canceled)
}

func TestSearchOverPlainLoopback(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	address := listenPlain(t, h)
	h.on("/fhir/.well-known/smart-configuration", text(http.StatusOK, `{"token_endpoint":"`+address+`/token"}`))
	c := newClient(t, ehr.Config{BaseURL: address + "/fhir/", ClientID: clientID, Secret: secret, InsecureLoopback: true})
	_, err := c.Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
}

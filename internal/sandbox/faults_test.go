package sandbox

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// knobs changes the knobs of a running sandbox.
func knobs(t *testing.T, s *Server, f Faults) {
	t.Helper()
	require.NoError(t, s.SetFaults(f))
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Now: clock.now})
	h := bearer(t, s)
	ask := func() response { return send(t, plain(), http.MethodGet, s.BaseURL()+"/Patient", nil, h) }

	knobs(t, s, Faults{Throttle: Throttle{EveryN: 3, RetryAfterSeconds: 7}})
	var statuses []int
	var last response
	for range 6 {
		last = ask()
		statuses = append(statuses, last.status)
	}
	require.Equal(t, []int{200, 200, 429, 200, 200, 429}, statuses)
	require.Equal(t, "7", last.header.Get("Retry-After")) // RFC 9110 §10.2.3, seconds
	require.Equal(t, "throttled", last.issue(t))          // DOMAIN §5

	knobs(t, s, Faults{Throttle: Throttle{EveryN: 1, RetryAfterSeconds: 90, RetryAfterDate: true}})
	require.Equal(t, "Sun, 01 Mar 2026 12:01:30 GMT", ask().header.Get("Retry-After")) // RFC 9110 §10.2.3, HTTP-date
	knobs(t, s, Faults{Throttle: Throttle{EveryN: 1}})
	require.Empty(t, ask().header.Get("Retry-After"))

	knobs(t, s, Faults{Throttle: Throttle{PerSecond: 2}})
	require.Equal(t, []int{200, 200, 429}, []int{ask().status, ask().status, ask().status})
	clock.advance(time.Second)
	require.Equal(t, []int{200, 200, 429}, []int{ask().status, ask().status, ask().status})
}

func TestFailNext(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	knobs(t, s, Faults{FailNext: []FailNext{{Count: 2, Status: 503, Type: "Observation", RetryAfterSeconds: 4}}})
	require.Equal(t, http.StatusOK, fetch(t, s, "/Patient").status, "another type is not concerned")
	r := fetch(t, s, "/Observation")
	require.Equal(t, http.StatusServiceUnavailable, r.status)
	require.Equal(t, "4", r.header.Get("Retry-After"))
	require.Equal(t, "transient", r.issue(t))
	require.Equal(t, 1, s.Faults().FailNext[0].Count)
	require.Equal(t, http.StatusServiceUnavailable, fetch(t, s, "/Observation/o1").status)
	r = fetch(t, s, "/Observation?_count=2")
	require.Equal(t, http.StatusOK, r.status, "used up")

	// A page is about the type of its search.
	next := r.link(t, "next")
	knobs(t, s, Faults{FailNext: []FailNext{{Count: 1, Status: 500, Type: "Observation"}}})
	require.Equal(t, http.StatusInternalServerError, fetch(t, s, next).status)
	require.Equal(t, http.StatusOK, fetch(t, s, next).status)

	knobs(t, s, Faults{FailNext: []FailNext{{Count: 1, Status: 503, Type: "token"}}})
	require.Equal(t, http.StatusServiceUnavailable, askToken(t, s, "system/*.rs").status)
	require.Equal(t, http.StatusOK, askToken(t, s, "system/*.rs").status)
}

func TestErrorRate(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Seed: 5})
	h := bearer(t, s)
	knobs(t, s, Faults{ErrorRate: 0.5})
	failed := 0
	for range 100 {
		if send(t, plain(), http.MethodGet, s.BaseURL()+"/Patient?_count=0", nil, h).status == http.StatusInternalServerError {
			failed++
		}
	}
	require.InDelta(t, 50, failed, 25)
	knobs(t, s, Faults{ErrorRate: 1})
	require.Equal(t, http.StatusInternalServerError, send(t, plain(), http.MethodGet, s.BaseURL()+"/metadata", nil, nil).status)
	require.Equal(t, http.StatusOK, askToken(t, s, "system/*.rs").status, "the token endpoint has its own knob")
}

func TestLatency(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	knobs(t, s, Faults{LatencyMS: 20})
	begun := time.Now()
	require.Equal(t, http.StatusOK, send(t, plain(), http.MethodGet, s.BaseURL()+"/metadata", nil, nil).status)
	require.GreaterOrEqual(t, time.Since(begun), 20*time.Millisecond)
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Patients: 40})
	broken := func(typ string) int {
		n := 0
		r := fetch(t, s, "/"+typ+"?_count=1000")
		for _, id := range r.ids(t) {
			res := fetch(t, s, "/"+typ+"/"+id).raw
			incomplete := typ == "Observation" && (get(res, "status") == nil || get(res, "code") == nil)
			if incomplete || string(get(res, "language")) == "42" || strings.Contains(getText(res, "birthDate"), "/") {
				n++
			}
		}
		return n
	}
	require.Zero(t, broken("Observation"))
	knobs(t, s, Faults{Malformed: map[string]float64{"Observation": 0.2}})
	all := s.Counts()["Observation"]
	n := broken("Observation")
	require.InDelta(t, float64(all)*0.2, n, float64(all)*0.1)
	require.Equal(t, n, broken("Observation"), "always the same ones")
	require.Zero(t, broken("Patient"))
	knobs(t, s, Faults{Malformed: map[string]float64{"*": 1}})
	for typ, count := range map[string]int{"Observation": all, "Patient": 40} {
		require.Equal(t, count, broken(typ), typ)
	}
}

// DOMAIN §5: one resource makes its whole page fail with 500 fatal/required.
func TestPoison(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	knobs(t, s, Faults{Poison: []string{"Observation/o2"}})
	for _, path := range []string{"/Observation", "/Observation/o2", "/Observation?patient=p2"} {
		r := fetch(t, s, path)
		require.Equal(t, http.StatusInternalServerError, r.status)
		require.Equal(t, "required", r.issue(t))
		require.Contains(t, string(r.raw), `"severity":"fatal"`)
	}
	require.Equal(t, []string{"o1", "o3"}, fetch(t, s, "/Observation?patient=p1").ids(t))
	require.Equal(t, http.StatusOK, fetch(t, s, "/Observation/o1").status)
}

func TestUntimed(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	knobs(t, s, Faults{Untimed: []string{"Observation/o2"}})
	for path, timed := range map[string]bool{"/Observation/o1": true, "/Observation/o2": false} {
		r := fetch(t, s, path)
		require.Equal(t, http.StatusOK, r.status)
		require.Equal(t, timed, strings.Contains(string(r.raw), "lastUpdated"))
		require.Contains(t, string(r.raw), "versionId")
	}
	require.Contains(t, fetch(t, s, "/Observation?_lastUpdated=gt2000-01-01").ids(t), "o2")
}

func TestOversize(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	knobs(t, s, Faults{Oversize: map[string]int{"Patient": 3 << 20, "Observation/o2": 1 << 20}})
	require.Greater(t, len(fetch(t, s, "/Patient/p1").raw), 3<<20, "the first of the type")
	require.Less(t, len(fetch(t, s, "/Patient/p2").raw), 1<<10)
	r := fetch(t, s, "/Observation")
	require.Greater(t, len(r.raw), 1<<20)
	require.Equal(t, []string{"o1", "o2", "o3", "o4"}, r.ids(t), "it stays JSON")
}

func TestAuthorizationKnobs(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	h := bearer(t, s)
	ask := func(path string) int { return send(t, plain(), http.MethodGet, s.BaseURL()+path, nil, h).status }

	knobs(t, s, Faults{RefuseTypes: []string{"Observation"}})
	r := fetch(t, s, "/Observation")
	require.Equal(t, http.StatusForbidden, r.status) // DOMAIN §5
	require.Equal(t, "forbidden", r.issue(t))
	require.Equal(t, http.StatusOK, ask("/Patient"))

	knobs(t, s, Faults{MissingTypes: []string{"Observation"}})
	require.Equal(t, http.StatusNotFound, ask("/Observation"))
	require.NotContains(t, capabilities(t, fetch(t, s, "/metadata")), "Observation")
	require.NotContains(t, s.Counts(), "Observation")

	knobs(t, s, Faults{GrantedScopes: "system/Patient.rs"})
	require.Equal(t, "system/Patient.rs", askToken(t, s, "system/*.rs").get(t, "scope"), "less than was asked")
	knobs(t, s, Faults{GrantedScopes: "system/*.*"})
	require.Equal(t, "system/*.*", askToken(t, s, "system/Patient.rs").get(t, "scope"), "more than was asked")

	knobs(t, s, Faults{TokenLifetimeSeconds: 570})
	require.EqualValues(t, "570", askToken(t, s, "system/*.rs").get(t, "expires_in"))

	knobs(t, s, Faults{RevokedClient: true})
	r = askToken(t, s, "system/*.rs")
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Equal(t, "invalid_client", r.get(t, "error"))
	require.Equal(t, http.StatusUnauthorized, ask("/Patient"), "tokens given before are refused too")
	knobs(t, s, Faults{})
	require.Equal(t, http.StatusUnauthorized, ask("/Patient"), "and stay so")
	require.Equal(t, http.StatusOK, fetch(t, s, "/Patient").status, "a new one is good")
}

func TestMetadataKnobs(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	knobs(t, s, Faults{STU3: true})
	require.Equal(t, "3.0.2", fetch(t, s, "/metadata").get(t, "fhirVersion"))
	knobs(t, s, Faults{HTML: true})
	for _, path := range []string{"/metadata", "/Patient", "/.well-known/smart-configuration"} {
		r := fetch(t, s, path)
		require.Equal(t, http.StatusOK, r.status)
		require.Contains(t, r.header.Get("Content-Type"), "text/html")
		require.True(t, strings.HasPrefix(string(r.raw), "<!DOCTYPE html>"))
	}
}

// walk follows next links from a search to their end, at most limit pages, and gives the ids of each page.
func walk(t *testing.T, s *Server, path string, limit int) (pages [][]string) {
	t.Helper()
	here, err := url.Parse(s.BaseURL() + path)
	require.NoError(t, err)
	for range limit {
		r := fetch(t, s, here.String())
		pages = append(pages, r.ids(t))
		next := r.link(t, "next")
		if next == "" {
			return pages
		}
		here, err = here.Parse(next) // DOMAIN §2: resolved against the request
		require.NoError(t, err)
	}
	return pages
}

func TestPagingKnobs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule   string
		faults Faults
		want   [][]string
	}{
		{"none", Faults{}, [][]string{{"o1", "o2"}, {"o3", "o4"}}},
		{"DOMAIN §2: an empty page with a next link is legal", Faults{EmptyPage: true}, [][]string{{}, {"o1", "o2"}, {"o3", "o4"}}},
		{"DOMAIN §2: the same id may come on several pages", Faults{DuplicateRows: true}, [][]string{{"o1", "o2"}, {"o2", "o3", "o4"}}},
		{"DOMAIN §2: next links may be relative", Faults{RelativeNext: true}, [][]string{{"o1", "o2"}, {"o3", "o4"}}},
		{"DOMAIN §2: loops", Faults{NextLoop: true}, [][]string{{"o1", "o2"}, {"o1", "o2"}, {"o1", "o2"}, {"o1", "o2"}, {"o1", "o2"}}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			s := hospital(t)
			knobs(t, s, tt.faults)
			require.Equal(t, tt.want, walk(t, s, "/Observation?_count=2", 5))
		})
	}
}

func TestNextLinkKnobs(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	knobs(t, s, Faults{NextOtherHost: "https://other.example"})
	require.True(t, strings.HasPrefix(fetch(t, s, "/Observation?_count=2").link(t, "next"), "https://other.example/fhir?_page="))
	require.NotEmpty(t, fetch(t, s, "/Observation").link(t, "next"), "also for a search of one page")
	knobs(t, s, Faults{RelativeNext: true})
	require.True(t, strings.HasPrefix(fetch(t, s, "/Observation?_count=2").link(t, "next"), "/fhir?_page="))
	knobs(t, s, Faults{NextLoop: true})
	first := fetch(t, s, "/Observation").link(t, "next")
	require.Equal(t, first, fetch(t, s, first).link(t, "next"))
	knobs(t, s, Faults{NoTotal: true})
	require.Nil(t, fetch(t, s, "/Observation").bundle(t).Total) // DOMAIN §2: total may be absent
}

// DOMAIN §2: next links expire.
func TestPageExpiry(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Now: clock.now, Patients: 5})
	next := func() string { return fetch(t, s, "/Observation?_count=2").link(t, "next") }

	knobs(t, s, Faults{PageExpiresAfterUses: 1})
	address := next()
	require.Equal(t, http.StatusOK, fetch(t, s, address).status)
	r := fetch(t, s, address)
	require.Equal(t, http.StatusGone, r.status)
	require.Equal(t, "expired", r.issue(t))

	knobs(t, s, Faults{PageExpiresAfterSeconds: 5})
	address = next()
	clock.advance(5 * time.Second)
	require.Equal(t, http.StatusOK, fetch(t, s, address).status)
	clock.advance(time.Second)
	require.Equal(t, http.StatusGone, fetch(t, s, address).status)

	knobs(t, s, Faults{})
	address = next()
	clock.advance(599 * time.Second)
	require.Equal(t, http.StatusOK, fetch(t, s, address).status)
	clock.advance(2 * time.Second)
	require.Equal(t, http.StatusGone, fetch(t, s, address).status)
}

func TestSearchesAreForgotten(t *testing.T) {
	t.Parallel()
	table := newPageTable()
	now := newClock().now()
	var tokens []string
	for range maxSearches + 10 {
		tokens = append(tokens, table.token(&results{typ: "Patient", hits: make([]hit, 2), count: 1}, 1, now))
	}
	require.Len(t, table.searches, maxSearches)
	require.Len(t, table.links, maxSearches)
	require.Equal(t, 2*maxSearches, table.rows)
	_, _, p := table.follow(tokens[0], Faults{}, now)
	require.NotNil(t, p)
	require.Equal(t, http.StatusGone, p.status)
	_, _, p = table.follow(tokens[len(tokens)-1], Faults{}, now)
	require.Nil(t, p)
	table.token(&results{hits: make([]hit, maxRows)}, 1, now)
	require.Len(t, table.searches, 1, "a large one drives the others out, not itself")
}

func TestClockSkew(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Now: clock.now, DataDir: folder(t, map[string]string{"a": patientA})})
	knobs(t, s, Faults{ClockSkewSeconds: -3600})
	r := fetch(t, s, "/Patient/p1")
	require.Equal(t, "Sun, 01 Mar 2026 11:00:00 GMT", r.header.Get("Date"))
	require.Equal(t, "2024-03-10T09:00:00.000Z", r.get(t, "meta", "lastUpdated"))
	require.Equal(t, "Sun, 10 Mar 2024 09:00:00 GMT", r.header.Get("Last-Modified"))
	require.Equal(t, []string{"p1"}, fetch(t, s, "/Patient?_lastUpdated=2024-03-10T09:00:00.000Z").ids(t), "searches go by the same clock")
	require.Empty(t, fetch(t, s, "/Patient?_lastUpdated=ge2024-03-10T10:00:00.000Z").ids(t))
}

func TestFaultsValidate(t *testing.T) {
	t.Parallel()
	for i, f := range []Faults{
		{LatencyMS: -1},
		{ErrorRate: 1.5},
		{Malformed: map[string]float64{"*": -1}},
		{Poison: []string{"Observation"}},
		{Untimed: []string{"Observation"}},
		{Throttle: Throttle{PerMinute: -1}},
		{Throttle: Throttle{PerMinute: 2_000_000}},
		{Throttle: Throttle{Status: 500}},
		{Throttle: Throttle{RetryAfterRaw: "1\r\nX: y"}},
		{DropParams: []string{""}},
		{DropSilently: true},
		{PageDepth: -1},
		{TokenDiesAfterRequests: -1},
		{LateCommitSeconds: -1},
		{LateCommitShare: 0.5},
		{LateCommitSeconds: 1, LateCommitShare: 2},
		{Certificate: "bad"},
		{MaxTLS: "1.0"},
		{NextOtherHost: "other"},
		{FailNext: []FailNext{{Count: 1, Status: 200}}},
		{Oversize: map[string]int{"Patient": 0}},
		{Throttle: Throttle{PerSecond: -1}},
		{PageExpiresAfterUses: -1},
	} {
		require.Error(t, f.Validate(), "case "+strconv.Itoa(i))
		_, err := Start(t.Context(), Config{Insecure: true, Faults: f})
		require.ErrorContains(t, err, "reading the sandbox's knobs")
	}
	s := hospital(t)
	knobs(t, s, Faults{NoTotal: true})
	require.Error(t, s.SetFaults(Faults{MaxTLS: "2"}))
	require.Equal(t, Faults{NoTotal: true}, s.Faults(), "a refused setting changes nothing")
}

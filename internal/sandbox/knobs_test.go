package sandbox

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// RFC 9110 §10.2.3 allows seconds and an HTTP-date; servers send other things too.
func TestRetryAfterRaw(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	h := bearer(t, s)
	for _, raw := range []string{"1764000000", "-5", "soon", "Sun, 06 Nov 1994 08:49:37 GMT", "1.5"} {
		knobs(t, s, Faults{Throttle: Throttle{EveryN: 1, RetryAfterSeconds: 7, RetryAfterRaw: raw, Status: http.StatusServiceUnavailable}})
		r := send(t, plain(), http.MethodGet, s.BaseURL()+"/Patient", nil, h)
		require.Equal(t, http.StatusServiceUnavailable, r.status)
		require.Equal(t, "throttled", r.issue(t))
		require.Equal(t, []string{raw}, r.header["Retry-After"])
	}
}

func TestThrottledTokenEndpoint(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	throttle := Throttle{EveryN: 2, RetryAfterSeconds: 3}
	knobs(t, s, Faults{Throttle: throttle})
	for range 4 {
		require.Equal(t, http.StatusOK, askToken(t, s, "").status, "it has a knob of its own")
	}
	throttle.Token = true
	knobs(t, s, Faults{Throttle: throttle})
	require.Equal(t, http.StatusOK, askToken(t, s, "").status)
	r := askToken(t, s, "")
	require.Equal(t, http.StatusTooManyRequests, r.status)
	require.Equal(t, "3", r.header.Get("Retry-After"))
	require.Equal(t, "temporarily_unavailable", r.get(t, "error"))
}

// A budget of requests a minute: all of them count, whichever minute of the clock they fall into.
func TestPerMinute(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Now: clock.now})
	h := bearer(t, s)
	knobs(t, s, Faults{Throttle: Throttle{PerMinute: 3, RetryAfterSeconds: 9}})
	ask := func(path string) response { return send(t, plain(), http.MethodGet, s.BaseURL()+path, nil, h) }
	require.Equal(t, http.StatusOK, ask("/metadata").status)
	clock.advance(30 * time.Second)
	require.Equal(t, http.StatusOK, askToken(t, s, "").status)
	require.Equal(t, http.StatusNotFound, ask("/Nothing/x").status)
	for range 3 {
		r := ask("/Patient")
		require.Equal(t, http.StatusTooManyRequests, r.status)
		require.Equal(t, "9", r.header.Get("Retry-After"))
	}
	r := askToken(t, s, "")
	require.Equal(t, http.StatusTooManyRequests, r.status)
	require.Equal(t, "temporarily_unavailable", r.get(t, "error"))
	clock.advance(30 * time.Second)
	require.Equal(t, http.StatusOK, ask("/Patient").status, "what was refused doesn't count")
	require.Equal(t, http.StatusTooManyRequests, ask("/Patient").status)

	noon := newClock().now()
	require.Equal(t, []Traffic{
		{noon, kindMetadata, "", 200, 1},
		{noon, kindRead, "", 404, 1},
		{noon, kindSearch, "Patient", 429, 3},
		{noon, kindToken, "", 200, 2},
		{noon, kindToken, "", 429, 1},
		{noon.Add(time.Minute), kindSearch, "Patient", 200, 1},
		{noon.Add(time.Minute), kindSearch, "Patient", 429, 1},
	}, s.Traffic())
	var told struct {
		Traffic []Traffic `json:"traffic"`
	}
	require.NoError(t, json.Unmarshal(control(t, s, http.MethodGet, "/traffic", "").raw, &told))
	require.Equal(t, s.Traffic(), told.Traffic)
}

// RFC 6750 §3.1: a token can be revoked at any time, also between two pages.
func TestTokenDiesBetweenPages(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	knobs(t, s, Faults{TokenDiesAfterRequests: 2})
	h := bearer(t, s)
	ask := func(address string) response { return send(t, plain(), http.MethodGet, address, nil, h) }
	first := ask(s.BaseURL() + "/Observation?_count=1")
	second := ask(first.link(t, "next"))
	require.Equal(t, http.StatusOK, second.status)
	third := second.link(t, "next")
	r := ask(third)
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Contains(t, r.header.Get("WWW-Authenticate"), `error="invalid_token"`)
	h = bearer(t, s)
	require.Equal(t, []string{"o3"}, ask(third).ids(t), "the link is good with a new token")
}

// DOMAIN §2: rows can be missing from a page; Bundle.total counts them.
func TestSkipRows(t *testing.T) {
	t.Parallel()
	for _, vendor := range []string{"", "hapi", "oracle", "athena"} {
		t.Run("vendor "+vendor, func(t *testing.T) {
			t.Parallel()
			s := hospitalOf(t, vendor,
				`{"resourceType":"Observation","id":"o5",`+aTime+`,`+labs1+`,"subject":{"reference":"Patient/p1"}}`,
				`{"resourceType":"Observation","id":"o6",`+aTime+`,`+labs1+`,"subject":{"reference":"Patient/p1"}}`)
			knobs(t, s, Faults{SkipRows: true})
			c := clientOf(t, s)
			rows := func(query string) []string { return slices.Sorted(slices.Values(slices.Concat(c.walk(query)...))) }
			require.Len(t, rows("/Observation?patient=p1&_count=2"), 3, "one row at one boundary")
			require.Equal(t, []string{"o1", "o3", "o5", "o6"}, rows("/Observation?patient=p1&_count=2"), "not again")
			require.Len(t, rows("/Observation?patient=p1&_count=1"), 4, "nor with pages of another size")
			require.Len(t, rows("/Observation?patient=p1&category=laboratory&_count=1"), 3, "another search")
			require.Len(t, rows("/Observation?patient=p1&code=4548-4&_count=2"), 2, "one page has no boundary")
			require.Equal(t, 4, *c.get("/Observation?patient=p1&_count=2").bundle(t).Total)
		})
	}
}

// DOMAIN §2: what a server ignores is missing from the self link, or should be.
func TestDropParams(t *testing.T) {
	t.Parallel()
	for _, vendor := range append(Vendors(), "") {
		t.Run("vendor "+vendor, func(t *testing.T) {
			t.Parallel()
			s := hospitalOf(t, vendor)
			c := clientOf(t, s)
			patient := s.store.servedID("Patient", "p2")
			query := "/Observation?category=laboratory&_lastUpdated=ge2999-01-01T00:00:00Z&patient=" + patient
			require.Empty(t, c.get(query).ids(t))
			for _, silently := range []bool{false, true} {
				knobs(t, s, Faults{DropParams: []string{"_lastUpdated", "patient"}, DropSilently: silently})
				r := c.get(query)
				require.Len(t, r.ids(t), 2, "those of the other patient")
				self, err := url.Parse(r.link(t, "self"))
				require.NoError(t, err)
				require.Equal(t, silently, self.Query().Has("patient"))
				require.Equal(t, "laboratory", self.Query().Get("category"))
			}
		})
	}
}

// DOMAIN §6: commits arrive late, the time of the transaction lies before that of its visibility.
func TestLateCommits(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Now: clock.now, DataDir: folder(t, map[string]string{"a": patientA + patientB})})
	knobs(t, s, Faults{LateCommitSeconds: 60})
	put := func(id string) {
		require.NoError(t, s.Put([]byte(`{"resourceType":"Patient","id":"`+id+`","active":true}`)))
	}
	put("p1")
	put("p3")
	since := "/Patient?_lastUpdated=ge2026-03-01T12:00:00.000Z"
	clock.advance(59 * time.Second)
	require.Empty(t, fetch(t, s, since).ids(t))
	require.Equal(t, "3", fetch(t, s, "/Patient/p1").get(t, "meta", "versionId"))
	require.Equal(t, http.StatusNotFound, fetch(t, s, "/Patient/p3").status)
	require.Equal(t, 2, s.Counts()["Patient"])
	require.NotContains(t, source(t, s)["Patient"], "p3")

	knobs(t, s, Faults{})
	put("p4") // seen at once, later than those before it
	require.Equal(t, []string{"p4"}, fetch(t, s, since).ids(t))
	clock.advance(time.Second)
	require.Equal(t, []string{"p1", "p4", "p3"}, fetch(t, s, since).ids(t))
	require.Equal(t, []string{"p2", "p1", "p3", "p4"}, fetch(t, s, "/Patient?_sort=_lastUpdated").ids(t), "with the time of the write")
	require.Equal(t, "4", fetch(t, s, "/Patient/p1").get(t, "meta", "versionId"))
	require.Contains(t, source(t, s)["Patient"], "p3")

	// The next write and a deletion come after what is still unseen.
	knobs(t, s, Faults{LateCommitSeconds: 60})
	put("p5")
	put("p5")
	require.Equal(t, "1", fetch(t, s, "/Patient/p5").get(t, "meta", "versionId"))
	require.NoError(t, s.Delete("Patient", "p5"))
	require.Equal(t, http.StatusGone, fetch(t, s, "/Patient/p5").status)

	knobs(t, s, Faults{LateCommitSeconds: 60, LateCommitShare: 0.5})
	before := s.Counts()["Patient"]
	for i := range 100 {
		put("many-" + string(rune('a'+i/10)) + string(rune('a'+i%10)))
	}
	require.InDelta(t, 50, s.Counts()["Patient"]-before, 20)
	clock.advance(time.Minute)
	require.Equal(t, before+100, s.Counts()["Patient"])
}

// DOMAIN §2: some stores page to a depth only.
func TestPageDepth(t *testing.T) {
	t.Parallel()
	for _, vendor := range Vendors() {
		t.Run(vendor, func(t *testing.T) {
			t.Parallel()
			s := hospitalOf(t, vendor, `{"resourceType":"Observation","id":"o5",`+aTime+`,`+labs1+`,"subject":{"reference":"Patient/p1"}}`)
			knobs(t, s, Faults{PageDepth: 1})
			c := clientOf(t, s)
			r := c.get("/Observation?_count=1&category=laboratory&patient=" + s.store.servedID("Patient", "p1"))
			r = c.get(r.link(t, "next"))
			require.Len(t, r.ids(t), 1)
			r = c.get(r.link(t, "next"))
			require.Equal(t, http.StatusBadRequest, r.status)
			require.Equal(t, "invalid", r.issue(t))
			require.Contains(t, string(r.raw), "offset")
		})
	}
}

func TestDateParameters(t *testing.T) {
	t.Parallel()
	s := serving(
		t, `{"resourceType":"Encounter","id":"open","period":{"start":"2024-05-01T10:00:00Z"}}`,
		`{"resourceType":"Encounter","id":"may","period":{"start":"2024-05-01","end":"2024-05-03"}}`,
		`{"resourceType":"Encounter","id":"none"}`,
		`{"resourceType":"Observation","id":"day","effectiveDateTime":"2024-05-02"}`,
		`{"resourceType":"Observation","id":"noon","effectiveInstant":"2024-05-02T12:00:00.000Z"}`,
	)
	for query, want := range map[string][]string{ // R4 §3.1.1.4.6
		"Encounter?date=ge2024-05-04":                           {"open"},
		"Encounter?date=ge2024-05-02":                           {"open", "may"},
		"Encounter?date=lt2024-05-01":                           {},
		"Encounter?date=le2024-05-02":                           {"open", "may"},
		"Encounter?date=2024-05":                                {"may"},
		"Encounter?date=eb2024-06":                              {"may"},
		"Encounter?date=sa2024-04":                              {"open", "may"},
		"Observation?date=2024-05-02":                           {"day", "noon"},
		"Observation?date=ne2024-05-02":                         {},
		"Observation?date=gt2024-05-02T11:00:00Z":               {"day", "noon"},
		"Observation?date=ap2024-05-02":                         {"day", "noon"},
		"Observation?date=ge2024-05-02&date=lt2024-05-02T01:00": {"day"},
	} {
		require.Equal(t, want, fetch(t, s, "/"+query).ids(t), query)
	}
	require.Equal(t, http.StatusBadRequest, fetch(t, s, "/Encounter?date=ge0001").status)
}

func TestSplitValues(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{`a,b`: {"a", "b"}, `a\,b`: {"a,b"}, `a\\,b`: {`a\`, "b"}, ``: {""}, `,`: {"", ""}} { // R4 §3.1.1.4.0.1
		require.Equal(t, want, splitValues(in))
	}
}

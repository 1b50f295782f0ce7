package sandbox

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestControlFaults(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	r := control(t, s, http.MethodPut, "/faults", `{"latency_ms":1,"malformed":{"Patient":0.5},"throttle":{"every_n":9,"retry_after_seconds":2}}`)
	require.Equal(t, http.StatusOK, r.status, "body: %s", r.raw)
	require.Equal(t, 9, s.Faults().Throttle.EveryN)

	// RFC 7396: a patch names what changes; null takes out.
	r = control(t, s, http.MethodPatch, "/faults", `{"no_total":true,"latency_ms":null,"malformed":{"Observation":1},"throttle":{"every_n":null}}`)
	require.Equal(t, http.StatusOK, r.status, "body: %s", r.raw)
	want := Faults{
		NoTotal: true, Malformed: map[string]float64{"Patient": 0.5, "Observation": 1}, Throttle: Throttle{RetryAfterSeconds: 2},
		FailNext: nil,
	}
	require.Equal(t, want, s.Faults())
	var got Faults
	require.NoError(t, json.Unmarshal(control(t, s, http.MethodGet, "/faults", "").raw, &got))
	require.Equal(t, want, got)

	for _, body := range []string{`{"latency":1}`, `{"latency_ms":"1"}`, `{"error_rate":2}`, `[]`, `{`} {
		for _, method := range []string{http.MethodPut, http.MethodPatch} {
			require.Equal(t, http.StatusBadRequest, control(t, s, method, "/faults", body).status, "%s %s", method, body)
		}
	}
	require.Equal(t, want, s.Faults())
	require.Equal(t, "{}\n", string(control(t, s, http.MethodPut, "/faults", "{}").raw))
}

func TestControlChanges(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	r := control(t, s, http.MethodPost, "/changes", `{"resourceType":"Patient","id":"p1","active":false}`)
	require.JSONEq(t, `{"verb":"changed","type":"Patient","id":"p1","version":"4"}`, string(r.raw))
	r = control(t, s, http.MethodPost, "/changes", `{"resourceType":"Patient"}`)
	require.Equal(t, "created", r.get(t, "verb"))
	require.NotEmpty(t, r.get(t, "id"), "an id is made up where there is none")
	r = control(t, s, http.MethodPost, "/changes", `{"delete":"Patient/p2"}`)
	require.JSONEq(t, `{"verb":"deleted","type":"Patient","id":"p2","version":"2"}`, string(r.raw))
	require.Equal(t, 2, s.Counts()["Patient"])
	for _, body := range []string{``, `{}`, `[]`, `{"delete":"Patient/nobody"}`, `{"delete":"x"}`, `{"resourceType":"patient"}`} {
		r = control(t, s, http.MethodPost, "/changes", body)
		require.Equal(t, http.StatusBadRequest, r.status, body)
		require.NotEmpty(t, r.get(t, "error"))
	}
}

func TestControlTells(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	require.JSONEq(t, `{"status":"ok"}`, string(control(t, s, http.MethodGet, "/healthz", "").raw))
	info := control(t, s, http.MethodGet, "/info", "")
	require.Equal(t, s.BaseURL(), info.get(t, "base_url"))
	require.Contains(t, info.get(t, "ca_pem"), "BEGIN CERTIFICATE")
	require.NotContains(t, string(info.raw), s.ClientSecret())

	h := bearer(t, s)
	h["Content-Type"] = "application/x-www-form-urlencoded"
	send(t, plain(), http.MethodPost, s.BaseURL()+"/Patient/_search?_count=5", strings.NewReader(url.Values{"identifier": {"007"}}.Encode()), h)
	send(t, plain(), http.MethodGet, s.BaseURL()+"/Patient/nobody", nil, nil)
	var log struct {
		Requests []Request `json:"requests"`
	}
	r := control(t, s, http.MethodGet, "/requests", "")
	require.NoError(t, json.Unmarshal(r.raw, &log))
	require.Len(t, log.Requests, 3)
	require.Equal(t, []any{"POST", "/oauth/token", "", 200, false}, line(log.Requests[0]), "credentials are not logged")
	require.Equal(t, []any{"POST", "/fhir/Patient/_search", "_count=5&identifier=007", 200, true}, line(log.Requests[1]))
	require.Equal(t, []any{"GET", "/fhir/Patient/nobody", "", 401, false}, line(log.Requests[2]))
	require.NotContains(t, string(r.raw), strings.TrimPrefix(h["Authorization"], "Bearer "))
}

func line(r Request) []any { return []any{r.Method, r.Path, r.Query, r.Status, r.Authorization} }

func TestRequestLogIsBounded(t *testing.T) {
	t.Parallel()
	var l requestLog
	for i := range 3 * maxRequests {
		l.add(Request{Status: i})
		require.LessOrEqual(t, len(l.last), maxRequests)
	}
	require.Equal(t, 3*maxRequests-1, l.all()[len(l.all())-1].Status)
}

// The control endpoint has no password: it must not be reached from elsewhere, nor by a web page in a local browser.
func TestControlIsForThisHost(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	tests := []struct {
		name   string
		header map[string]string
		status int
	}{
		{"plain", nil, 200},
		{"localhost", map[string]string{"Host": "localhost:80"}, 200},
		{"another name for this host (DNS rebinding)", map[string]string{"Host": "evil.example"}, 403},
		{"a page of another site", map[string]string{"Origin": "https://evil.example"}, 403},
		{"a page of another site, by fetch metadata", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := send(t, plain(), http.MethodPut, s.ControlURL()+"/faults", strings.NewReader("{}"), tt.header)
			require.Equal(t, tt.status, r.status)
		})
	}
	_, err := Start(t.Context(), Config{Insecure: true, ControlAddr: "0.0.0.0:0"})
	require.ErrorContains(t, err, "loopback")
	_, err = Start(t.Context(), Config{Insecure: true, Addr: "0.0.0.0:0"})
	require.ErrorContains(t, err, "plain http is served on a loopback address only")
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "127.9.9.9": true, "localhost": true, "10.0.0.1:1": false, "evil.example": false, "": false, ":1": false,
	} {
		require.Equal(t, want, isLoopback(addr), addr)
	}
}

package ehr

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// TestBearerStaysAtHome asks the layer itself, since the code above never lets such a request through.
func TestBearerStaysAtHome(t *testing.T) {
	t.Parallel()
	home, err := url.Parse("https://ehr.example/fhir")
	require.NoError(t, err)
	cases := map[string]bool{
		"https://ehr.example/fhir/Patient":      true,
		"https://ehr.example:443/other":         true,
		"https://EHR.example/fhir":              true,
		"http://ehr.example/fhir":               false,
		"https://ehr.example:8443/fhir":         false,
		"https://ehr.example.evil/fhir":         false,
		"https://files.ehr.example/fhir":        false,
		"https://169.254.169.254/fhir":          false,
		"https://ehr.example@evil.example/fhir": false,
	}
	for address, carries := range cases {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			var sent http.Header
			next := roundTrip(func(req *http.Request) (*http.Response, error) {
				sent = req.Header
				return httptest.NewRecorder().Result(), nil
			})
			tokens := newTokens(&Client{cfg: Config{}.withDefaults()}, nil)
			tokens.current = grant{accessToken: "opaque", renewAt: time.Now().Add(time.Hour)}
			layer := &bearer{next: next, home: originOf(home), tokens: tokens}

			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
			require.NoError(t, err)
			resp, err := layer.RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, carries, sent.Get("Authorization") == "Bearer opaque")
			require.Equal(t, carries, sent.Get("Authorization") != "")
			require.Empty(t, req.Header, "the caller's request isn't changed")
		})
	}
}

// A body that is read from somewhere is used up by the first request; one that is at hand is sent again (find_test.go).
func TestBearerSendsAUsedUpBodyOnce(t *testing.T) {
	t.Parallel()
	sent := 0
	next := roundTrip(func(*http.Request) (*http.Response, error) {
		sent++
		return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody}, nil
	})
	tokens := newTokens(&Client{cfg: Config{}.withDefaults()}, nil)
	tokens.current = grant{accessToken: "opaque", renewAt: time.Now().Add(time.Hour)}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://ehr.example/fhir/Patient/_search", io.NopCloser(strings.NewReader("name=x")))
	require.NoError(t, err)
	resp, err := (&bearer{next: next, home: originOf(req.URL), tokens: tokens}).RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	require.Equal(t, 1, sent)
}

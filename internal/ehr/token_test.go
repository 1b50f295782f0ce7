package ehr_test

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func search(t *testing.T, c *ehr.Client) error {
	t.Helper()
	_, err := c.Search(t.Context(), ehr.Query{Type: cura.Patient})
	return err
}

func TestTokenRequest(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		methods string
		inForm  bool
	}{
		"nothing said":   {``, false},
		"basic":          {`,"token_endpoint_auth_methods_supported":["private_key_jwt","client_secret_basic"]`, false},
		"both":           {`,"token_endpoint_auth_methods_supported":["client_secret_post","client_secret_basic"]`, false},
		"post":           {`,"token_endpoint_auth_methods_supported":["client_secret_post"]`, true},
		"post, or a key": {`,"token_endpoint_auth_methods_supported":["private_key_jwt","client_secret_post"]`, true},
	}
	for name, test := range cases {
		for source, given := range map[string]bool{"discovered": false, "given": true} {
			t.Run(name+", "+source, func(t *testing.T) {
				t.Parallel()
				h := newHospital(t)
				h.on("/fhir/.well-known/smart-configuration", text(http.StatusOK, `{"token_endpoint":"`+h.URL+`/token"`+test.methods+`}`))
				var form url.Values
				var user, password string
				give := h.giveToken()
				h.on("/token", func(w http.ResponseWriter, r *http.Request) {
					_ = r.ParseForm()
					form = r.PostForm
					user, password, _ = r.BasicAuth()
					give(w, r)
				})
				c := h.client(t, func(cfg *ehr.Config) {
					cfg.Scopes = []string{"system/Patient.rs", "system/Observation.rs"}
					if given {
						cfg.TokenURL = h.URL + "/token"
					}
				})
				require.NoError(t, search(t, c))
				require.Equal(t, "client_credentials", form.Get("grant_type"))
				require.Equal(t, "system/Patient.rs system/Observation.rs", form.Get("scope"))
				if test.inForm {
					require.Equal(t, []string{clientID, secret, "", ""}, []string{form.Get("client_id"), form.Get("client_secret"), user, password})
				} else {
					// RFC 6749 §2.3.1: both parts are form-encoded first.
					require.Equal(t, []string{"", "", clientID, url.QueryEscape(secret)}, []string{form.Get("client_id"), form.Get("client_secret"), user, password})
				}
				require.Len(t, h.asked("/token"), 1)
			})
		}
	}
}

func TestTokenEndpointDiscovery(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		document string
		status   int
		kind     fault.Kind
		detail   string
	}{
		"relative":            {`{"token_endpoint":"../token"}`, http.StatusOK, "", ""},
		"rooted":              {`{"token_endpoint":"/token"}`, http.StatusOK, "", ""},
		"another domain":      {`{"token_endpoint":"https://tokens.phish.example/token"}`, http.StatusOK, fault.Config, "outside the FHIR base's domain"},
		"plain http":          {`{"token_endpoint":"http://auth.hospital.example/token"}`, http.StatusOK, fault.Config, "in the clear"},
		"none":                {`{"issuer":"x"}`, http.StatusOK, fault.Config, "names no token_endpoint"},
		"not a URL":           {`{"token_endpoint":"https://%zz"}`, http.StatusOK, fault.Config, "isn't a URL"},
		"keys only":           {`{"token_endpoint":"/token","token_endpoint_auth_methods_supported":["private_key_jwt"]}`, http.StatusOK, fault.Config, "takes no client secrets"},
		"another JSON":        {`{"token_endpoint":["/token"]}`, http.StatusOK, fault.Protocol, "isn't the JSON"},
		"HTML":                {`<html></html>`, http.StatusOK, fault.Protocol, "an HTML page"},
		"not there":           {``, http.StatusNotFound, fault.Config, "404 Not Found"},
		"server in trouble":   {``, http.StatusBadGateway, fault.Transient, "502 Bad Gateway"},
		"a redirect isn't it": {``, http.StatusFound, fault.Protocol, "302 Found"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/.well-known/smart-configuration", text(test.status, test.document, "Location", "/elsewhere"))
			err := search(t, h.client(t))
			if test.kind == "" {
				require.NoError(t, err)
				return
			}
			f := requireFault(t, err, test.kind)
			require.Contains(t, f.Detail, test.detail)
			require.NotEmpty(t, f.Fix)
			require.Empty(t, h.asked("/token"))
			require.Empty(t, h.asked("/elsewhere"))
			require.Empty(t, h.asked("/fhir/Patient"), "nothing is asked without a token")
		})
	}
}

func TestTokenURLGivenNeedsNoDiscovery(t *testing.T) {
	t.Parallel()
	h, authorization := newHospital(t), newHospital(t)
	h.on("/fhir/.well-known/smart-configuration", text(http.StatusNotFound, ""))
	c := h.client(t, func(cfg *ehr.Config) {
		cfg.TokenURL = authorization.URL + "/token"
		cfg.CAPEM += authorization.ca()
	})
	require.NoError(t, search(t, c))
	require.NoError(t, search(t, c))
	require.Len(t, authorization.asked("/token"), 1)
	require.Len(t, h.asked("/fhir/.well-known/smart-configuration"), 1, "asked once, for how the secret is sent")
	for _, r := range authorization.asked("") {
		require.NotContains(t, r.Header.Get("Authorization"), "Bearer")
	}
}

func TestTokenRenewal(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		expires string
		fresh   time.Duration // still the first token
		stale   time.Duration // the second
	}{
		"an hour":         {`"expires_in":3600`, 3538 * time.Second, 3541 * time.Second},
		"as text":         {`"expires_in":"570"`, 508 * time.Second, 511 * time.Second},
		"half a minute":   {`"expires_in":30`, 13 * time.Second, 16 * time.Second},
		"nothing said":    {`"scope":"system/Patient.rs"`, 239 * time.Second, 241 * time.Second},
		"said to be null": {`"expires_in":null`, 239 * time.Second, 241 * time.Second},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/token", h.giveToken(test.expires))
			now := &clock{now: time.Now()}
			c := h.client(t, func(cfg *ehr.Config) { cfg.Clock = now.read })
			for _, step := range []time.Duration{0, test.fresh, test.stale - test.fresh} {
				now.advance(step)
				require.NoError(t, search(t, c))
			}
			var used []string
			for _, r := range h.asked("/fhir/Patient") {
				used = append(used, r.Header.Get("Authorization"))
			}
			require.Equal(t, []string{"Bearer token-1", "Bearer token-1", "Bearer token-2"}, used)
		})
	}
}

func TestTokenSingleFlight(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	c := h.client(t)
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	for range cap(errs) {
		wg.Go(func() { errs <- search(t, c) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.Len(t, h.asked("/token"), 1)
}

func TestTokenCallerCancelledWhileAnotherFetches(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	fetching, release := make(chan struct{}), make(chan struct{})
	give := h.giveToken()
	h.on("/token", func(w http.ResponseWriter, r *http.Request) {
		close(fetching)
		<-release
		give(w, r)
	})
	c := h.client(t)
	first := make(chan error, 1)
	go func() { first <- search(t, c) }()
	<-fetching
	ctx, cancel := contextWithCancel(t)
	cancel()
	_, err := c.Search(ctx, ehr.Query{Type: cura.Patient})
	require.ErrorIs(t, err, context.Canceled)
	close(release)
	require.NoError(t, <-first)
}

// refuse lets through only the token named, as a server does that has revoked the earlier ones.
func refuse(h *hospital, accepted string, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+accepted {
			text(http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer error="invalid_token"`)(w, r)
			return
		}
		if answer == nil {
			answer = h.emptySearch
		}
		answer(w, r)
	}
}

func TestReauthenticationInMidChain(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", text(http.StatusOK, searchset(match("Patient", "p1"), link("next", "/fhir/more"))))
	h.on("/fhir/more", refuse(h, "token-2", text(http.StatusOK, searchset(match("Patient", "p2")))))
	ids, _, err := pages(t, h.client(t), cura.Patient)
	require.NoError(t, err)
	require.Equal(t, []string{"p1", "p2"}, ids)
	require.Len(t, h.asked("/token"), 2)
}

func TestReauthenticationHappensOnce(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", refuse(h, "none", nil))
	f := requireFault(t, search(t, h.client(t)), fault.Auth)
	require.Contains(t, f.Detail, "401 Unauthorized")
	require.NotEmpty(t, f.Fix)
	require.Len(t, h.asked("/fhir/Patient"), 2)
	require.Len(t, h.asked("/token"), 2)
}

func TestRevokedClientInMidChain(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	c := h.client(t)
	require.NoError(t, search(t, c))
	h.on("/fhir/Patient", refuse(h, "none", nil))
	h.on("/token", text(http.StatusUnauthorized, `{"error":"invalid_client"}`))
	f := requireFault(t, search(t, c), fault.Auth)
	require.Equal(t, "getting an access token", f.Op)
	require.Contains(t, f.Detail, "invalid_client")
}

func TestTokenEndpointAnswers(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		status int
		body   string
		header []string
		kind   fault.Kind
		after  time.Duration
	}{
		"wrong secret":          {401, `{"error":"invalid_client","error_description":"no"}`, nil, fault.Auth, 0},
		"wrong secret, as 400":  {400, `{"error":"invalid_client"}`, nil, fault.Auth, 0},
		"wrong secret, as 200":  {200, `{"error":"invalid_client"}`, nil, fault.Auth, 0},
		"not mapped":            {400, `{"error":"unauthorized_client"}`, nil, fault.Auth, 0},
		"revoked":               {400, `{"error":"invalid_grant"}`, nil, fault.Auth, 0},
		"unknown scope":         {400, `{"error":"invalid_scope"}`, nil, fault.Config, 0},
		"grant not allowed":     {400, `{"error":"unsupported_grant_type"}`, nil, fault.Config, 0},
		"invalid request":       {400, `{"error":"invalid_request"}`, nil, fault.Config, 0},
		"words of its own":      {400, `{"error":"Maria Garcia"}`, nil, fault.Config, 0},
		"bare 401":              {401, ``, nil, fault.Auth, 0},
		"403 of a gateway":      {403, `<html></html>`, nil, fault.Auth, 0},
		"not there":             {404, ``, nil, fault.Config, 0},
		"redirect":              {307, ``, []string{"Location", "https://phish.example/token"}, fault.Protocol, 0},
		"throttled":             {429, ``, []string{"Retry-After", "7"}, fault.Throttled, 7 * time.Second},
		"throttled, no time":    {429, ``, nil, fault.Throttled, 0},
		"busy":                  {503, ``, []string{"Retry-After", "7"}, fault.Throttled, 7 * time.Second},
		"down":                  {503, ``, nil, fault.Transient, 0},
		"broken":                {500, `{"error":"server_error"}`, nil, fault.Transient, 0},
		"temporarily, as 400":   {400, `{"error":"temporarily_unavailable"}`, nil, fault.Transient, 0},
		"HTML as 200":           {200, `<html></html>`, nil, fault.Protocol, 0},
		"no token":              {200, `{"token_type":"bearer"}`, nil, fault.Protocol, 0},
		"another kind of token": {200, `{"access_token":"x","token_type":"mac"}`, nil, fault.Protocol, 0},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/token", text(test.status, test.body, test.header...))
			err := search(t, h.client(t))
			f := requireFault(t, err, test.kind)
			require.Equal(t, test.after, f.RetryAfter)
			require.NotEmpty(t, f.Fix)
			require.NotContains(t, f.Error(), "Garcia")
			require.Len(t, h.asked("/token"), 1, "no second try behind the caller's back")
			require.Empty(t, h.asked("/fhir/Patient"))
		})
	}
}

func TestTokenConnectionBreaks(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/token", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"access_token":`))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	requireFault(t, search(t, h.client(t)), fault.Transient)
}

func TestTokenIsNotSentToTheTokenEndpointsOfOthers(t *testing.T) {
	t.Parallel()
	elsewhere, h := newHospital(t), newHospital(t)
	h.on("/token", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+"/token", http.StatusTemporaryRedirect)
	})
	requireFault(t, search(t, h.client(t)), fault.Protocol)
	require.Empty(t, elsewhere.asked(""), "the secret isn't sent on")
}

// TestATokenThatWasGoodForAnotherRequestIsRenewed: one that is fetched fresh and refused isn't a matter of the credentials where
// another request has used it up meanwhile.
func TestATokenThatWasGoodForAnotherRequestIsRenewed(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	var c *ehr.Client
	var other sync.Once
	h.on("/fhir/Patient", func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "Bearer token-1":
			w.WriteHeader(http.StatusUnauthorized)
			return
		case "Bearer token-2":
			used := true
			other.Do(func() { used = false })
			if !used {
				// Another request comes in between, and is the last that the token is good for.
				if err := search(t, c); err != nil { //nolint:contextcheck // it is another request, of the test's own
					t.Error(err)
				}
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		w.Header().Set("Content-Type", "application/fhir+json")
		_, _ = w.Write([]byte(`{"resourceType":"Bundle","type":"searchset"}`))
	})
	c = h.client(t)
	require.NoError(t, search(t, c))
	require.Len(t, h.asked("/token"), 3)
}

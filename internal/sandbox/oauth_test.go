package sandbox

import (
	"maps"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTokenEndpoint(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Clients: map[string]string{"cura": "s:e cret"}})
	ok := url.Values{"grant_type": {"client_credentials"}, "scope": {"system/*.rs"}, "client_id": {"cura"}, "client_secret": {"s:e cret"}}
	with := func(key, value string) url.Values {
		out := maps.Clone(ok)
		out[key] = []string{value}
		return out
	}
	noSecret := with("client_secret", "")
	tests := []struct {
		name   string
		form   url.Values
		header map[string]string
		status int
		code   string
		scope  string
	}{
		{name: "RFC 6749 §2.3.1: secret in the body", form: ok, status: 200, scope: "system/*.rs"},
		{
			name: "RFC 6749 §2.3.1: HTTP Basic, both parts form-encoded", form: url.Values{"grant_type": {"client_credentials"}, "scope": {"system/*.rs"}},
			header: map[string]string{"Authorization": "Basic Y3VyYTpzJTNBZStjcmV0"}, status: 200, scope: "system/*.rs",
		},
		{
			name: "RFC 6749 §2.3: no more than one way at once", form: ok,
			header: map[string]string{"Authorization": "Basic Y3VyYTpzJTNBZStjcmV0"}, status: 401, code: "invalid_client",
		},
		{name: "RFC 6749 §5.2: wrong secret", form: with("client_secret", "no"), status: 401, code: "invalid_client"},
		{name: "RFC 6749 §5.2: no secret", form: noSecret, status: 401, code: "invalid_client"},
		{name: "RFC 6749 §5.2: unknown client", form: with("client_id", "other"), status: 401, code: "invalid_client"},
		{name: "RFC 6749 §5.2: another grant type", form: with("grant_type", "password"), status: 400, code: "unsupported_grant_type"},
		{name: "RFC 6749 §5.2: nothing that can be granted", form: with("scope", "user/Patient.rs openid"), status: 400, code: "invalid_scope"},
		{name: "SMART 2.x scopes: letters in the order of cruds only", form: with("scope", "system/Patient.sr"), status: 400, code: "invalid_scope"},
		{name: "SMART 2.x scopes: v1 spelling", form: with("scope", "system/Patient.read"), status: 200, scope: "system/Patient.read"},
		{
			name: "RFC 6749 §3.3: less than was asked, and told", form: with("scope", "launch system/Patient.rs system/Observation.read fhirUser"),
			status: 200, scope: "system/Patient.rs system/Observation.read",
		},
		{name: "RFC 6749 §3.3: a default when none is asked (DOMAIN §1: Epic sends none)", form: with("scope", ""), status: 200, scope: "system/*.rs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := form(t, s.TokenURL(), tt.form, tt.header)
			require.Equal(t, tt.status, r.status, "body: %s", r.raw)
			require.Equal(t, "no-store", r.header.Get("Cache-Control"), "RFC 6749 §5.1")
			if tt.code != "" {
				require.Equal(t, tt.code, r.get(t, "error"))
				return
			}
			require.Equal(t, tt.scope, r.get(t, "scope"))
			require.Equal(t, "Bearer", r.get(t, "token_type"))
			require.EqualValues(t, "300", r.get(t, "expires_in"), "SMART Backend Services: at most five minutes")
			require.NotEmpty(t, r.get(t, "access_token"))
		})
	}
}

func TestTokenEndpointWantsAForm(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	// RFC 6749 §3.2: the client must use POST; §4.4.2: with a form.
	r := send(t, plain(), http.MethodGet, s.TokenURL(), nil, nil)
	require.Equal(t, http.StatusMethodNotAllowed, r.status)
	r = send(t, plain(), http.MethodPost, s.TokenURL(), nil, map[string]string{"Content-Type": "application/json"})
	require.Equal(t, http.StatusBadRequest, r.status)
	require.Equal(t, "invalid_request", r.get(t, "error"))
	// RFC 6749 §5.2: a client that used the Authorization header is answered with WWW-Authenticate.
	r = form(t, s.TokenURL(), url.Values{"grant_type": {"client_credentials"}}, map[string]string{"Authorization": "Basic YTpi"})
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Contains(t, r.header.Get("WWW-Authenticate"), "Basic")
}

func TestBearerToken(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	ask := func(authorization string) response {
		h := map[string]string{}
		if authorization != "" {
			h["Authorization"] = authorization
		}
		return send(t, plain(), http.MethodGet, s.BaseURL()+"/Patient", nil, h)
	}
	r := ask("")
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Equal(t, `Bearer realm="sandbox"`, r.header.Get("WWW-Authenticate"), "RFC 6750 §3.1: no error code without a token")
	require.Equal(t, "login", r.issue(t))
	r = ask("Bearer made-up")
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Contains(t, r.header.Get("WWW-Authenticate"), `error="invalid_token"`, "RFC 6750 §3.1")
	require.Equal(t, http.StatusUnauthorized, ask("Basic eDp5").status)
	require.Equal(t, http.StatusOK, ask(bearer(t, s)["Authorization"]).status)
}

func TestTokenExpires(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Now: clock.now, Faults: Faults{TokenLifetimeSeconds: 60}})
	r := askToken(t, s, "system/*.rs")
	require.EqualValues(t, "60", r.get(t, "expires_in"))
	h := bearer(t, s)
	ask := func() response { return send(t, plain(), http.MethodGet, s.BaseURL()+"/Patient", nil, h) }
	require.Equal(t, http.StatusOK, ask().status)
	clock.advance(61 * time.Second)
	r = ask()
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Contains(t, r.header.Get("WWW-Authenticate"), `error="invalid_token"`) // RFC 6750 §3.1: expired
}

func TestScopesCoverTypes(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	id := s.store.first("Patient")
	tests := []struct {
		scope, path string
		status      int
	}{
		// SMART App Launch 2.x, scopes: r is read, vread and history; s is search.
		{"system/Patient.rs", "/Patient", 200},
		{"system/Patient.rs", "/Patient/" + id, 200},
		{"system/Patient.r", "/Patient/" + id, 200},
		{"system/Patient.r", "/Patient", 403},
		{"system/Patient.s", "/Patient", 200},
		{"system/Patient.s", "/Patient/" + id, 403},
		{"system/Patient.read", "/Patient", 200},
		{"system/Patient.write", "/Patient", 403},
		{"system/*.*", "/Observation", 200},
		{"system/*.cruds", "/Observation", 200},
		{"system/Patient.rs", "/Observation", 403},
	}
	for _, tt := range tests {
		t.Run(tt.scope+" "+tt.path[:8], func(t *testing.T) {
			t.Parallel()
			r := send(t, plain(), http.MethodGet, s.BaseURL()+tt.path, nil, bearerFor(t, s, tt.scope))
			require.Equal(t, tt.status, r.status)
			if tt.status == 403 {
				require.Equal(t, "forbidden", r.issue(t))
				require.Contains(t, r.header.Get("WWW-Authenticate"), `error="insufficient_scope"`) // RFC 6750 §3.1
			}
		})
	}
}

func TestSmartConfiguration(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	// SMART App Launch 2.x, Conformance: JSON whatever Accept says, without a token, below the base's path.
	r := send(t, plain(), http.MethodGet, s.BaseURL()+"/.well-known/smart-configuration", nil, map[string]string{"Accept": "text/html"})
	require.Equal(t, http.StatusOK, r.status)
	require.Equal(t, "application/json", r.header.Get("Content-Type"))
	require.Equal(t, s.TokenURL(), r.get(t, "token_endpoint"))
	require.Equal(t, []any{"client_credentials"}, r.get(t, "grant_types_supported"))
	require.Equal(t, []any{"client_secret_basic", "client_secret_post"}, r.get(t, "token_endpoint_auth_methods_supported"))
	require.Contains(t, r.get(t, "capabilities"), "client-confidential-symmetric")
	require.Contains(t, r.get(t, "code_challenge_methods_supported"), "S256")
	require.NotContains(t, r.get(t, "code_challenge_methods_supported"), "plain")
}

package sandbox

import (
	"cmp"
	"crypto/subtle"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// defaultTokenLife is the lifetime that SMART recommends for backend services: at most five minutes.
const defaultTokenLife = 300

// defaultScopes is granted when a request names no scope (RFC 6749 §3.3 lets the server have a default).
const defaultScopes = "system/*.rs"

// scope is one SMART scope of the system level: a type or "*", and what may be done with it.
type scope struct {
	typ         string
	permissions string // letters of cruds
}

// SMART App Launch 2.x, "Scopes for requesting FHIR Resources": letters in the order of cruds only.
var scopePattern = regexp.MustCompile(`^system/(\*|[A-Z][A-Za-z]+)\.(read|write|\*|c?r?u?d?s?)$`)

// parseScopes reads system scopes in v1 and v2 spelling. What the sandbox does not know (user/, patient/, launch,
// openid, v2 scopes with a query) is left out: a server may grant less than was asked.
func parseScopes(text string) (scopes []scope, granted string) {
	var kept []string
	for s := range strings.FieldsSeq(text) {
		parts := scopePattern.FindStringSubmatch(s)
		if len(parts) < 3 || parts[2] == "" {
			continue
		}
		permissions := parts[2]
		switch permissions {
		case "read":
			permissions = "rs"
		case "write":
			permissions = "cud"
		case "*":
			permissions = "cruds"
		}
		scopes = append(scopes, scope{parts[1], permissions})
		kept = append(kept, s)
	}
	return scopes, strings.Join(kept, " ")
}

// grant is what stands behind an access token.
type grant struct {
	client  string
	scopes  []scope
	expires time.Time
	uses    int
}

func (g grant) allows(typ, permission string) bool {
	return slices.ContainsFunc(g.scopes, func(s scope) bool {
		return (s.typ == "*" || s.typ == typ) && strings.Contains(s.permissions, permission)
	})
}

// tokens are the access tokens given out. It is safe for concurrent use.
type tokens struct {
	mu     sync.Mutex
	grants map[string]*grant
}

func (t *tokens) give(g grant, now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for token, old := range t.grants {
		if now.After(old.expires.Add(time.Hour)) {
			delete(t.grants, token)
		}
	}
	token := randomText() + randomText()
	t.grants[token] = &g
	return token
}

// find gives the grant of a token and counts a use of it; most is how many uses it is good for, 0: any number.
func (t *tokens) find(token string, most int, now time.Time) (grant, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok := t.grants[token]
	if !ok || !now.Before(g.expires) || most > 0 && g.uses >= most {
		return grant{}, false
	}
	g.uses++
	return *g, true
}

func (t *tokens) revokeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.grants)
}

// tokenResponse is RFC 6749 §5.1.
type tokenResponse struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	Scope       string `json:"scope"`
}

// tokenError is RFC 6749 §5.2.
type tokenError struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// token is the token endpoint: client credentials (RFC 6749 §4.4), with the client authenticated by HTTP Basic or in
// the body (§2.3.1).
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	f := s.faults.get()
	if v := s.faults.judge(kindToken, s.now()); v.status != 0 {
		refuseToken(w, v)
		return
	}
	refuse := func(status int, code, description string) {
		writeJSON(w, "application/json", status, tokenError{code, description})
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(http.StatusMethodNotAllowed, "invalid_request", "The token endpoint is used with POST")
		return
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		refuse(http.StatusBadRequest, "invalid_request", "The request must be application/x-www-form-urlencoded")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		refuse(http.StatusBadRequest, "invalid_request", "The form cannot be read")
		return
	}
	id, ok := s.authenticate(r)
	if !ok || f.RevokedClient {
		if r.Header.Get("Authorization") != "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="sandbox"`)
		}
		refuse(http.StatusUnauthorized, "invalid_client", "Client authentication failed")
		return
	}
	if grantType := r.PostForm.Get("grant_type"); grantType != "client_credentials" {
		refuse(http.StatusBadRequest, "unsupported_grant_type", "Only client_credentials is offered")
		return
	}
	scopes, granted := s.granted(r.PostForm.Get("scope"), f)
	if len(scopes) == 0 {
		refuse(http.StatusBadRequest, "invalid_scope", "None of the scopes can be granted; ask for scopes such as system/Patient.rs")
		return
	}
	life := cmp.Or(f.TokenLifetimeSeconds, s.vendor.tokenLife, defaultTokenLife)
	now := s.now()
	token := s.tokens.give(grant{client: id, scopes: scopes, expires: now.Add(time.Duration(life) * time.Second)}, now)
	writeJSON(w, "application/json", http.StatusOK, tokenResponse{token, "Bearer", life, granted})
}

// refuseToken answers a token request that the knobs refuse.
func refuseToken(w http.ResponseWriter, v verdict) {
	if v.retryAfter != "" {
		w.Header().Set("Retry-After", v.retryAfter)
	}
	writeJSON(w, "application/json", v.status, tokenError{"temporarily_unavailable", "The server cannot answer now; try again later"})
}

// granted gives the scopes for a token request, as the knobs, the vendor or R4 have it.
func (s *Server) granted(asked string, f Faults) ([]scope, string) {
	switch {
	case f.GrantedScopes != "":
		return parseScopes(f.GrantedScopes)
	case s.vendor.grants != nil:
		return s.vendor.grants(asked, s.registered(f))
	default:
		return parseScopes(cmp.Or(asked, defaultScopes))
	}
}

// registered are the scopes that a client is registered for, in the spelling of version 1.
func (s *Server) registered(f Faults) []string {
	var out []string
	for _, typ := range s.servedTypes() {
		if slices.Contains(f.RefuseTypes, typ) {
			continue
		}
		if !s.createOnly(typ) || s.store.based(typ) {
			out = append(out, "system/"+typ+".read")
		}
		if s.vendor.writes.offers(typ, "c") {
			out = append(out, "system/"+typ+".write")
		}
	}
	return out
}

// authenticate gives the client that the request proves to be. A client that uses both ways at once is refused
// (RFC 6749 §2.3: one method per request).
func (s *Server) authenticate(r *http.Request) (string, bool) {
	id, secret, basic := r.BasicAuth()
	if basic {
		// RFC 6749 §2.3.1: both parts are form-encoded before they are put together.
		var err1, err2 error
		id, err1 = url.QueryUnescape(id)
		secret, err2 = url.QueryUnescape(secret)
		if err1 != nil || err2 != nil || r.PostForm.Has("client_secret") {
			return "", false
		}
	} else {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	want, known := s.clients[id]
	same := subtle.ConstantTimeCompare([]byte(secret), []byte(want)) == 1
	return id, known && want != "" && same
}

// authorize reads the bearer token of a request (RFC 6750).
func (s *Server) authorize(r *http.Request) (grant, *problem) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		p := fail(http.StatusUnauthorized, codeLogin, "An access token is needed: send Authorization: Bearer")
		p.challenge = `Bearer realm="sandbox"` // RFC 6750 §3.1: no error code when no token was sent
		return grant{}, p
	}
	f := s.faults.get()
	g, ok := s.tokens.find(strings.TrimSpace(token), f.TokenDiesAfterRequests, s.now())
	if !ok || f.RevokedClient {
		p := fail(http.StatusUnauthorized, codeLogin, "The access token is unknown, expired or revoked")
		p.challenge = `Bearer realm="sandbox", error="invalid_token", error_description="The access token is unknown, expired or revoked"`
		return grant{}, p
	}
	return g, nil
}

// insufficientScope tells that the grant does not cover a type (RFC 6750 §3.1 insufficient_scope).
func insufficientScope(typ, permission string) *problem {
	p := fail(http.StatusForbidden, codeForbidden, "The scopes of the access token do not cover this resource type")
	p.challenge = `Bearer realm="sandbox", error="insufficient_scope", scope="system/` + typ + "." + permission + `"`
	return p
}

// smartConfiguration is .well-known/smart-configuration (SMART App Launch 2.x, Conformance). It is JSON whatever
// Accept says.
func (s *Server) smartConfiguration(w http.ResponseWriter, r *http.Request) {
	if s.hinder(w, kindSMART) {
		return
	}
	scopes := []string{"system/*.rs", "system/*.read"}
	if len(s.vendor.writes.creates) > 0 {
		scopes = append(scopes, "system/*.cruds", "system/*.write")
	}
	writeJSON(w, "application/json", http.StatusOK, map[string]any{
		"token_endpoint":                        s.origin(r) + "/oauth/token",
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
		"grant_types_supported":                 []string{"client_credentials"},
		"scopes_supported":                      scopes,
		"response_types_supported":              []string{},
		"code_challenge_methods_supported":      []string{"S256"},
		"capabilities":                          []string{"client-confidential-symmetric", "permission-v1", "permission-v2"},
	})
}

func writeJSON(w http.ResponseWriter, contentType string, status int, v any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return // the client is gone; there is no one to tell
	}
}

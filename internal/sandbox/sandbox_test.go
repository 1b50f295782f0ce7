package sandbox

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tests speak plain HTTP to the sandbox, as any client would, and cite the rule that each of them checks.

// start runs a sandbox over http with the given data; without any it generates three patients.
func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	if cfg.Patients == 0 {
		cfg.Patients = 3
	}
	cfg.Insecure = true
	s, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// serving runs a sandbox on a folder with one NDJSON file.
func serving(t *testing.T, lines ...string) *Server {
	t.Helper()
	return start(t, Config{DataDir: folder(t, map[string]string{"data.ndjson": strings.Join(lines, "\n")})})
}

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// response is an answer with its body read.
type response struct {
	status int
	header http.Header
	raw    []byte
}

func (r response) get(t *testing.T, path ...string) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(r.raw))
	d.UseNumber()
	var v any
	require.NoError(t, d.Decode(&v), "body: %.300s", r.raw)
	for _, key := range path {
		m, ok := v.(map[string]any)
		require.True(t, ok, "no object around %s in %.300s", key, r.raw)
		v = m[key]
	}
	return v
}

// ids lists the matches of a searchset in their order.
func (r response) ids(t *testing.T) []string {
	t.Helper()
	require.Equal(t, http.StatusOK, r.status, "body: %.300s", r.raw)
	out := []string{}
	for _, e := range r.bundle(t).Entry {
		if e.Search.Mode == "match" {
			out = append(out, e.Resource.ID)
		}
	}
	return out
}

type searchset struct {
	Type  string `json:"type"`
	Total *int   `json:"total"`
	Link  []struct {
		Relation string `json:"relation"`
		URL      string `json:"url"`
	} `json:"link"`
	Entry []struct {
		FullURL  string `json:"fullUrl"`
		Resource struct {
			ResourceType string `json:"resourceType"`
			ID           string `json:"id"`
			Meta         struct {
				VersionID   string `json:"versionId"`
				LastUpdated string `json:"lastUpdated"`
			} `json:"meta"`
		} `json:"resource"`
		Search struct {
			Mode string `json:"mode"`
		} `json:"search"`
		Request  map[string]string `json:"request"`
		Response map[string]string `json:"response"`
	} `json:"entry"`
}

// sameBytes is stricter than an equality of JSON: a resource keeps its own bytes.
func sameBytes(t *testing.T, want string, got []byte) {
	t.Helper()
	require.Equal(t, want, string(got))
}

func (r response) bundle(t *testing.T) searchset {
	t.Helper()
	var b searchset
	require.NoError(t, json.Unmarshal(r.raw, &b), "body: %.300s", r.raw)
	return b
}

func (r response) link(t *testing.T, relation string) string {
	t.Helper()
	for _, l := range r.bundle(t).Link {
		if l.Relation == relation {
			return l.URL
		}
	}
	return ""
}

// issue is the code of an OperationOutcome.
func (r response) issue(t *testing.T) string {
	t.Helper()
	var o struct {
		ResourceType string `json:"resourceType"`
		Issue        []struct {
			Severity string `json:"severity"`
			Code     string `json:"code"`
		} `json:"issue"`
	}
	require.NoError(t, json.Unmarshal(r.raw, &o), "body: %.300s", r.raw)
	require.Equal(t, "OperationOutcome", o.ResourceType)
	require.NotEmpty(t, o.Issue)
	return o.Issue[0].Code
}

// send makes a request as it is.
func send(t *testing.T, client *http.Client, method, address string, body io.Reader, header map[string]string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, body)
	require.NoError(t, err)
	for k, v := range header {
		if k == "Host" {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	res, err := client.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, res.Body.Close()) }()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return response{res.StatusCode, res.Header, raw}
}

func plain() *http.Client { return &http.Client{Timeout: 30 * time.Second} }

// trusting is a client that trusts the sandbox's authority.
func trusting(tb testing.TB, s *Server, maxVersion uint16) *http.Client {
	tb.Helper()
	pool := x509.NewCertPool()
	require.True(tb, pool.AppendCertsFromPEM(s.CAPEM()))
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: maxVersion},
		ForceAttemptHTTP2: true,
	}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// askToken asks for an access token by client_secret_post.
func askToken(t *testing.T, s *Server, scope string) response {
	t.Helper()
	return form(t, s.TokenURL(), url.Values{
		"grant_type": {"client_credentials"}, "scope": {scope},
		"client_id": {s.ClientID()}, "client_secret": {s.ClientSecret()},
	}, nil)
}

func form(t *testing.T, address string, values url.Values, header map[string]string) response {
	t.Helper()
	all := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	maps.Copy(all, header)
	return send(t, plain(), http.MethodPost, address, strings.NewReader(values.Encode()), all)
}

// bearer gives the header of a client that may read everything.
func bearer(t *testing.T, s *Server) map[string]string {
	t.Helper()
	return bearerFor(t, s, "system/*.rs")
}

func bearerFor(t *testing.T, s *Server, scope string) map[string]string {
	t.Helper()
	r := askToken(t, s, scope)
	require.Equal(t, http.StatusOK, r.status, "body: %s", r.raw)
	text, ok := r.get(t, "access_token").(string)
	require.True(t, ok)
	return map[string]string{"Authorization": "Bearer " + text}
}

// fetch asks for path below the base, with a token for everything.
func fetch(t *testing.T, s *Server, path string, header ...string) response {
	t.Helper()
	h := bearer(t, s)
	for i := 0; i+1 < len(header); i += 2 {
		h[header[i]] = header[i+1]
	}
	address := path
	if !strings.HasPrefix(path, "http") {
		address = s.BaseURL() + path
	}
	return send(t, plain(), http.MethodGet, address, nil, h)
}

// control makes a request to the control endpoint.
func control(t *testing.T, s *Server, method, path, body string) response {
	t.Helper()
	return send(t, plain(), method, s.ControlURL()+path, strings.NewReader(body), nil)
}

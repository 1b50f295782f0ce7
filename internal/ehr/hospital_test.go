package ehr_test

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

const (
	clientID = "cura-client"
	secret   = "s3cret-&-more"
)

// hospital is a FHIR server over TLS that answers as it is told, and remembers what it was asked.
type hospital struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	answers  map[string]http.HandlerFunc
	tokens   int
}

// newHospital serves metadata, SMART discovery, tokens and empty searches under /fhir until a test replaces one by its
// path.
func newHospital(t *testing.T) *hospital {
	t.Helper()
	return newHospitalOver(t, "HTTP/1.1")
}

// newHospitalOver is newHospital with a choice of HTTP/1.1 and HTTP/2.0.
func newHospitalOver(t *testing.T, protocol string) *hospital {
	t.Helper()
	h := &hospital{answers: map[string]http.HandlerFunc{}}
	h.Server = httptest.NewUnstartedServer(h)
	h.EnableHTTP2 = protocol == "HTTP/2.0"
	h.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // the faults are wanted
	h.StartTLS()
	t.Cleanup(h.Close)
	h.on("/fhir/.well-known/smart-configuration", text(http.StatusOK, `{"token_endpoint":"`+h.URL+`/token"}`))
	h.on("/fhir/metadata", text(http.StatusOK, capabilityStatement("4.0.1")))
	h.on("/token", h.giveToken(`"expires_in":300`))
	return h
}

// on says how a path is answered; it may be called again at any time.
func (h *hospital) on(path string, answer http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers[path] = answer
}

func (h *hospital) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.requests = append(h.requests, r)
	answer := h.answers[r.URL.Path]
	h.mu.Unlock()
	if answer == nil {
		answer = h.emptySearch
	}
	answer(w, r)
}

func (h *hospital) emptySearch(w http.ResponseWriter, r *http.Request) {
	text(http.StatusOK, searchset("", link("self", h.URL+r.URL.RequestURI())))(w, r)
}

// giveToken answers with token-1, token-2 and so on, and the further members given.
func (h *hospital) giveToken(members ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.tokens++
		n := h.tokens
		h.mu.Unlock()
		all := append([]string{fmt.Sprintf(`"access_token":"token-%d","token_type":"bearer"`, n)}, members...)
		text(http.StatusOK, "{"+strings.Join(all, ",")+"}")(w, r)
	}
}

// asked gives the requests for a path, in order; "" for all.
func (h *hospital) asked(path string) []*http.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []*http.Request
	for _, r := range h.requests {
		if path == "" || r.URL.Path == path {
			found = append(found, r)
		}
	}
	return found
}

func (h *hospital) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}))
}

func (h *hospital) config(change ...func(*ehr.Config)) ehr.Config {
	cfg := ehr.Config{BaseURL: h.URL + "/fhir", ClientID: clientID, Secret: secret, CAPEM: h.ca()}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

func (h *hospital) client(t *testing.T, change ...func(*ehr.Config)) *ehr.Client {
	t.Helper()
	return newClient(t, h.config(change...))
}

func newClient(t *testing.T, cfg ehr.Config) *ehr.Client {
	t.Helper()
	c, err := ehr.New(cfg)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// listenPlain serves a hospital over plain http too, and gives that address.
func listenPlain(t *testing.T, h *hospital) string {
	t.Helper()
	plain := httptest.NewServer(h)
	t.Cleanup(plain.Close)
	return plain.URL
}

func text(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// searchset is a Bundle of the entries, which are JSON and separated by commas.
func searchset(entries string, links ...string) string {
	return fmt.Sprintf(`{"resourceType":"Bundle","type":"searchset","link":[%s],"entry":[%s]}`, strings.Join(links, ","), entries)
}

func link(relation, url string) string {
	return fmt.Sprintf(`{"relation":%q,"url":%q}`, relation, url)
}

func match(resourceType, id string) string {
	return fmt.Sprintf(`{"search":{"mode":"match"},"resource":{"resourceType":%q,"id":%q}}`, resourceType, id)
}

func capabilityStatement(version string, types ...string) string {
	if len(types) == 0 {
		types = []string{"Patient", "AllergyIntolerance", "MedicationRequest", "MedicationStatement", "Observation", "Encounter", "Consent"}
	}
	var resources []string
	for _, typ := range types {
		resources = append(resources, fmt.Sprintf(
			`{"type":%q,"interaction":[{"code":"read"},{"code":"search-type"}],"searchParam":[{"name":"_lastUpdated"}]}`, typ))
	}
	return fmt.Sprintf(`{"resourceType":"CapabilityStatement","fhirVersion":%q,"rest":[{"mode":"server","resource":[%s]}]}`,
		version, strings.Join(resources, ","))
}

// requireFault checks an error's kind, and that it tells what to do wherever a person has to do something.
func requireFault(t *testing.T, err error, kind fault.Kind) fault.Error {
	t.Helper()
	var f *fault.Error
	require.ErrorAs(t, err, &f)
	require.Equal(t, kind, f.Kind, f.Error())
	require.NotEmpty(t, f.Op)
	require.NotEmpty(t, f.Detail)
	return *f
}

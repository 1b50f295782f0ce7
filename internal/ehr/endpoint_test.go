package ehr_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
)

// checks finds the checks of a name, of one type where it is given.
func checks(r cura.EndpointReport, name string, typ ...cura.ResourceType) []cura.Check {
	var found []cura.Check
	for _, c := range r.Checks {
		if c.Name == name && (len(typ) == 0 || slices.Contains(typ, c.Type)) {
			found = append(found, c)
		}
	}
	return found
}

// requireCheck finds the one check of that name and type, and compares its verdict and words.
func requireCheck(t *testing.T, r cura.EndpointReport, name string, typ cura.ResourceType, verdict cura.Verdict, seen string) {
	t.Helper()
	found := checks(r, name, typ)
	require.Len(t, found, 1, "%s %s in %+v", name, typ, r.Checks)
	require.Equal(t, verdict, found[0].Verdict, found[0].Seen)
	require.Contains(t, found[0].Seen, seen)
	require.Equal(t, verdict == cura.VerdictOK, found[0].Fix == "", "a fix for what isn't ok, and only for that")
}

// stocked answers searches with one resource of that type and a count.
func stocked(h *hospital, typ cura.ResourceType, total int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body := searchset(match(string(typ), "x1"), link("self", h.URL+r.URL.RequestURI()))
		text(http.StatusOK, strings.Replace(body, `"type"`, fmt.Sprintf(`"total":%d,"type"`, total), 1))(w, r)
	}
}

func TestEndpointInOrder(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	for i, typ := range cura.ResourceTypes() {
		h.on("/fhir/"+string(typ), stocked(h, typ, 100+i))
	}
	h.on("/fhir/metadata", text(http.StatusOK, capabilityStatement("4.0.1", append([]string{"Goal", "Binary", "not a type"}, typeNames()...)...)))
	scopes := []string{"system/Patient.read", "system/AllergyIntolerance.rs", "system/MedicationRequest.rs", "system/MedicationStatement.rs", "system/Observation.rs", "system/Encounter.rs", "system/Consent.rs"}
	h.on("/token", h.giveToken(`"expires_in":570`, `"scope":"`+strings.Join(scopes, " ")+`"`))

	r := h.client(t, func(cfg *ehr.Config) { cfg.Scopes = scopes }).Test(t.Context(), ehr.TestOptions{})
	require.Equal(t, cura.VerdictOK, r.Verdict(), "%+v", r.Checks)
	var order []string
	for _, c := range r.Checks {
		if len(order) == 0 || order[len(order)-1] != c.Name {
			order = append(order, c.Name)
		}
	}
	require.Equal(t, []string{
		ehr.CheckURL, ehr.CheckDNS, ehr.CheckTCP, ehr.CheckTLS, ehr.CheckMetadata, ehr.CheckTypes, ehr.CheckSMART, ehr.CheckToken,
		ehr.CheckScopes, ehr.CheckBreadth, ehr.CheckClock, ehr.CheckRead, ehr.CheckSearchParams,
	}, order[:13])
	for _, name := range []string{ehr.CheckTypes, ehr.CheckRead, ehr.CheckSearchParams} {
		require.Len(t, checks(r, name), len(cura.ResourceTypes()))
	}
	require.Equal(t, []string{"Binary", "Goal"}, r.Offered)
	require.Empty(t, r.Forbidden)
	require.Empty(t, r.Missing)
	requireCheck(t, r, ehr.CheckTLS, "", cura.VerdictOK, "TLS 1.3, verified by the CA given; chain: Acme Co")
	requireCheck(t, r, ehr.CheckMetadata, "", cura.VerdictOK, "FHIR 4.0.1, JSON")
	requireCheck(t, r, ehr.CheckToken, "", cura.VerdictOK, "570 s")
	requireCheck(t, r, ehr.CheckScopes, "", cura.VerdictOK, "asked: "+strings.Join(scopes, " ")+"; granted: "+strings.Join(scopes, " "))
	requireCheck(t, r, ehr.CheckRead, cura.Patient, cura.VerdictOK, "counts 100")
	require.Len(t, h.asked("/token"), 1)
	for _, request := range h.asked("/fhir/metadata") {
		require.Empty(t, request.Header.Get("Authorization"))
	}
	for _, request := range h.asked("/fhir/Consent") {
		require.Equal(t, "1", request.URL.Query().Get("_count"))
	}
}

func typeNames() []string {
	var names []string
	for _, typ := range cura.ResourceTypes() {
		names = append(names, string(typ))
	}
	return names
}

func TestEndpointSettings(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		cfg   ehr.Config
		check string
	}{
		"plain http": {ehr.Config{BaseURL: "http://ehr.hospital.example", ClientID: "x", Secret: "x"}, ehr.CheckURL},
		"no URL":     {ehr.Config{ClientID: "x", Secret: "x", CAPEM: "garbage"}, ehr.CheckURL},
		"CA file":    {ehr.Config{BaseURL: "https://ehr.hospital.example", ClientID: "x", Secret: "x", CAPEM: "garbage"}, ehr.CheckTLS},
		"no secret":  {ehr.Config{BaseURL: "https://ehr.hospital.example", ClientID: "x"}, ehr.CheckToken},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := ehr.Test(t.Context(), test.cfg, ehr.TestOptions{})
			require.Len(t, r.Checks, 1)
			requireCheck(t, r, test.check, "", cura.VerdictFailed, "")
		})
	}
}

func TestEndpointMetadata(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		answer http.HandlerFunc
		seen   string
		fix    string
	}{
		"wrong URL":       {text(404, ""), "404 Not Found", "FHIR base URL"},
		"HTML":            {text(200, "<html></html>"), "HTML page", "sign-on page"},
		"XML":             {text(200, "<CapabilityStatement/>"), "XML", "FHIR base URL"},
		"STU3":            {text(200, capabilityStatement("3.0.2")), "FHIR 3.0.2 (STU3)", "R4"},
		"DSTU2":           {text(200, `{"resourceType":"Conformance","fhirVersion":"1.0.2"}`), "DSTU2", "R4"},
		"R4B":             {text(200, capabilityStatement("4.3.0")), "FHIR 4.3.0", "R4"},
		"R5":              {text(200, capabilityStatement("5.0.0")), "FHIR 5.0.0", "R4"},
		"no version":      {text(200, `{"resourceType":"CapabilityStatement"}`), "no fhirVersion", "R4"},
		"nonsense":        {text(200, capabilityStatement("<Garcia>")), "can't be read", "R4"},
		"other JSON":      {text(200, `{"status":"up"}`), "no CapabilityStatement", "FHIR base URL"},
		"broken JSON":     {text(200, `{"resourceType":"Capa`), "broken JSON", "FHIR base URL"},
		"firewall":        {text(403, ""), "403 Forbidden", "firewall"},
		"server is down":  {text(503, ""), "503", "FHIR server"},
		"moved":           {text(301, "", "Location", "https://elsewhere.example"), "301", "final address"},
		"asks for format": {text(406, ""), "406", "application/fhir+json"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/metadata", test.answer)
			r := h.client(t).Test(t.Context(), ehr.TestOptions{})
			last := r.Checks[len(r.Checks)-1]
			requireCheck(t, r, ehr.CheckMetadata, "", cura.VerdictFailed, test.seen)
			require.Equal(t, ehr.CheckMetadata, last.Name, "what depends on it is left out")
			require.Contains(t, last.Fix, test.fix)
			require.Empty(t, h.asked("/token"), "no secret is sent to what isn't an R4 server")
		})
	}
}

func TestEndpointCertificateNearItsEnd(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for name, test := range map[string]struct {
		left    time.Duration
		verdict cura.Verdict
	}{"29 days": {29 * 24 * time.Hour, cura.VerdictWarning}, "31 days": {31 * 24 * time.Hour, cura.VerdictOK}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			end := time.Now().Add(test.left)
			leaf := sign(t, &ca, func(c *x509.Certificate) { c.NotAfter = end })
			address := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{leaf}, MaxVersion: tls.VersionTLS12})
			r := ehr.Test(t.Context(), ehr.Config{BaseURL: address + "/fhir", ClientID: clientID, Secret: secret, CAPEM: ca.pem()}, ehr.TestOptions{})
			requireCheck(t, r, ehr.CheckTLS, "", test.verdict,
				"TLS 1.2, verified by the CA given; chain: ehr.hospital.example <- Hospital Root CA; valid until "+end.UTC().Format(time.DateOnly))
		})
	}
}

func TestEndpointToken(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		prepare func(h *hospital)
		check   string
		seen    string
	}{
		"wrong secret":  {func(h *hospital) { h.on("/token", text(401, `{"error":"invalid_client"}`)) }, ehr.CheckToken, "invalid_client"},
		"scope unknown": {func(h *hospital) { h.on("/token", text(400, `{"error":"invalid_scope"}`)) }, ehr.CheckToken, "invalid_scope"},
		"no discovery":  {func(h *hospital) { h.on("/fhir/.well-known/smart-configuration", text(404, "")) }, ehr.CheckSMART, "404"},
		"token endpoint elsewhere": {func(h *hospital) {
			h.on("/fhir/.well-known/smart-configuration", text(200, `{"token_endpoint":"https://tokens.example/t"}`))
		}, ehr.CheckSMART, "outside the FHIR base's domain"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			test.prepare(h)
			r := h.client(t).Test(t.Context(), ehr.TestOptions{})
			requireCheck(t, r, test.check, "", cura.VerdictFailed, test.seen)
			requireCheck(t, r, ehr.CheckClock, "", cura.VerdictOK, "")
			require.Empty(t, checks(r, ehr.CheckRead))
			require.Empty(t, h.asked("/fhir/Patient"))
		})
	}
}

func TestEndpointTokenWithoutLifetime(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/token", h.giveToken())
	requireCheck(t, h.client(t).Test(t.Context(), ehr.TestOptions{}), ehr.CheckToken, "", cura.VerdictOK, "300 s are assumed")
}

func TestEndpointScopes(t *testing.T) {
	t.Parallel()
	types := []cura.ResourceType{cura.Patient, cura.Observation}
	both := []string{"system/Patient.rs", "system/Observation.rs"}
	cases := map[string]struct {
		asked   []string
		granted string // "-" for no scope member
		scopes  cura.Verdict
		breadth cura.Verdict // "" for no such check
		seen    string
	}{
		"as asked":                {both, "system/Patient.rs system/Observation.rs", cura.VerdictOK, cura.VerdictOK, ""},
		"nothing said":            {both, "-", cura.VerdictOK, cura.VerdictOK, ""},
		"version 1 for 2":         {both, "system/Patient.read system/Observation.read", cura.VerdictOK, cura.VerdictOK, ""},
		"none asked, as at Epic":  {nil, "system/Patient.read system/Observation.read", cura.VerdictOK, cura.VerdictOK, "asked: none"},
		"a type short":            {both, "system/Patient.rs", cura.VerdictWarning, cura.VerdictOK, "not granted: Observation"},
		"read without search":     {both, "system/Patient.rs system/Observation.r", cura.VerdictWarning, cura.VerdictOK, "not granted: Observation"},
		"split":                   {both, "system/Patient.rs system/Observation.r system/Observation.s", cura.VerdictOK, cura.VerdictOK, ""},
		"patients' own":           {both, "patient/Patient.rs patient/Observation.rs", cura.VerdictWarning, cura.VerdictWarning, "not granted: Patient, Observation"},
		"in part":                 {both, "system/Patient.rs system/Observation.rs?category=laboratory", cura.VerdictWarning, cura.VerdictOK, "in part only: Observation"},
		"empty":                   {both, "", cura.VerdictWarning, "", "no SMART scope"},
		"not SMART's":             {both, "fhir.read admin", cura.VerdictWarning, "", "2 others"},
		"all, v1":                 {both, "system/*.*", cura.VerdictOK, cura.VerdictWarning, ""},
		"all, v2":                 {[]string{"system/*.cruds"}, "system/*.cruds", cura.VerdictOK, cura.VerdictWarning, ""},
		"all, in write":           {nil, "system/*.rs system/*.cud", cura.VerdictOK, cura.VerdictWarning, ""},
		"read of all, unasked":    {both, "system/*.read", cura.VerdictOK, cura.VerdictWarning, ""},
		"read of all, asked":      {[]string{"system/*.read"}, "system/*.read", cura.VerdictOK, cura.VerdictOK, ""},
		"write beside, unasked":   {both, "system/Patient.cruds system/Observation.rs", cura.VerdictOK, cura.VerdictWarning, ""},
		"others are passed over":  {both, "openid system/Patient.rs system/Observation.rs", cura.VerdictOK, cura.VerdictOK, "1 others"},
		"another type besides":    {both, "system/Patient.rs system/Observation.rs system/Binary.rs", cura.VerdictOK, cura.VerdictWarning, ""},
		"patient's data as scope": {both, "system/Patient.rs system/Observation.rs?patient=Garcia Garcia", cura.VerdictWarning, cura.VerdictOK, "1 others"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			members := []string{`"expires_in":300`}
			if test.granted != "-" {
				members = append(members, fmt.Sprintf(`"scope":%q`, test.granted))
			}
			h.on("/token", h.giveToken(members...))
			r := h.client(t, func(cfg *ehr.Config) { cfg.Scopes = test.asked }).Test(t.Context(), ehr.TestOptions{Types: types})
			requireCheck(t, r, ehr.CheckScopes, "", test.scopes, test.seen)
			require.NotContains(t, fmt.Sprint(r), "Garcia")
			if test.breadth == "" {
				require.Empty(t, checks(r, ehr.CheckBreadth))
			} else {
				requireCheck(t, r, ehr.CheckBreadth, "", test.breadth, "")
			}
			require.Len(t, checks(r, ehr.CheckRead), 2, "the reads are made whatever the scopes say")
		})
	}
}

func TestEndpointClock(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		ahead   time.Duration
		verdict cura.Verdict
		seen    string
	}{
		"together":    {0, cura.VerdictOK, "the server's clock is"},
		"ahead":       {20 * time.Second, cura.VerdictOK, "ahead"},
		"a minute":    {time.Minute, cura.VerdictWarning, "ahead of ours"},
		"behind":      {-time.Minute, cura.VerdictWarning, "behind ours"},
		"ten minutes": {-10 * time.Minute, cura.VerdictFailed, "behind ours"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/metadata", func(w http.ResponseWriter, r *http.Request) {
				text(200, capabilityStatement("4.0.1"), "Date", time.Now().Add(test.ahead).UTC().Format(http.TimeFormat))(w, r)
			})
			requireCheck(t, h.client(t).Test(t.Context(), ehr.TestOptions{}), ehr.CheckClock, "", test.verdict, test.seen)
		})
	}
	t.Run("no Date", func(t *testing.T) {
		t.Parallel()
		h := newHospital(t)
		h.on("/fhir/metadata", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Date"] = nil
			text(200, capabilityStatement("4.0.1"))(w, r)
		})
		requireCheck(t, h.client(t).Test(t.Context(), ehr.TestOptions{}), ehr.CheckClock, "", cura.VerdictWarning, "no Date")
	})
}

func TestEndpointForbiddenType(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"empty, as at Epic": "", "with an outcome": outcome("error", "forbidden")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient", stocked(h, cura.Patient, 3))
			h.on("/fhir/Observation", text(403, body))
			r := h.client(t).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Patient, cura.Observation, cura.Encounter}})
			require.Equal(t, []cura.ResourceType{cura.Observation}, r.Forbidden)
			require.Equal(t, cura.VerdictWarning, r.Verdict())
			requireCheck(t, r, ehr.CheckRead, cura.Observation, cura.VerdictWarning, "switched off")
			requireCheck(t, r, ehr.CheckRead, cura.Encounter, cura.VerdictOK, "")
			require.Contains(t, checks(r, ehr.CheckRead, cura.Observation)[0].Fix, "system/Observation.read")
		})
	}
}

func TestEndpointForbiddenPatient(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", text(403, ""))
	r := h.client(t).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Patient, cura.Encounter}})
	requireCheck(t, r, ehr.CheckRead, cura.Patient, cura.VerdictFailed, "without patients")
	requireCheck(t, r, ehr.CheckRead, cura.Encounter, cura.VerdictOK, "")
}

func TestEndpointAllForbidden(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Observation", text(403, ""))
	r := h.client(t).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Observation}})
	requireCheck(t, r, ehr.CheckRead, "", cura.VerdictFailed, "not one of the resource types")
}

func TestEndpointMissingType(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"404": text(404, ""),
		"400": text(400, outcome("error", "not-supported")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/metadata", text(200, capabilityStatement("4.0.1", "Patient", "Encounter")))
			h.on("/fhir/Patient", stocked(h, cura.Patient, 3))
			h.on("/fhir/Consent", answer)
			r := h.client(t).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Patient, cura.Consent, cura.Observation, cura.Encounter}})
			require.Equal(t, []cura.ResourceType{cura.Consent}, r.Missing)
			require.Empty(t, r.Forbidden)
			requireCheck(t, r, ehr.CheckTypes, cura.Consent, cura.VerdictWarning, "doesn't list it")
			requireCheck(t, r, ehr.CheckRead, cura.Consent, cura.VerdictWarning, "switched off")
			requireCheck(t, r, ehr.CheckTypes, cura.Observation, cura.VerdictWarning, "doesn't list it")
			requireCheck(t, r, ehr.CheckRead, cura.Observation, cura.VerdictOK, "") // it works, whatever metadata says
			require.Equal(t, cura.VerdictWarning, r.Verdict())
		})
	}
}

func TestEndpointInteractionsAreCompared(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/metadata", text(200, `{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1","rest":[
		{"mode":"client","resource":[{"type":"Observation"}]},
		{"mode":"server","searchParam":[{"name":"_lastupdated"}],"resource":[{"type":"Patient","interaction":[{"code":"read"}]}]}]}`))
	r := h.client(t).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Patient, cura.Observation}})
	requireCheck(t, r, ehr.CheckTypes, cura.Patient, cura.VerdictWarning, "without search-type")
	requireCheck(t, r, ehr.CheckTypes, cura.Observation, cura.VerdictWarning, "doesn't list it")
	requireCheck(t, r, ehr.CheckSearchParams, cura.Patient, cura.VerdictOK, "listed in metadata and taken")
	requireCheck(t, r, ehr.CheckSearchParams, cura.Observation, cura.VerdictOK, "isn't listed in metadata but taken")
}

func TestEndpointEmptyServer(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	r := h.client(t).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Patient, cura.Encounter}})
	requireCheck(t, r, ehr.CheckRead, cura.Patient, cura.VerdictWarning, "0 resources")
	requireCheck(t, r, ehr.CheckRead, cura.Encounter, cura.VerdictOK, "0 resources")
	require.Equal(t, cura.VerdictWarning, r.Verdict())
}

func TestEndpointReads(t *testing.T) {
	t.Parallel()
	unbounded := func(h *hospital, status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("_lastUpdated") {
				text(status, body)(w, r)
				return
			}
			stocked(h, cura.Patient, 3)(w, r)
		}
	}
	cases := map[string]struct {
		answer       func(h *hospital) http.HandlerFunc
		read, params cura.Verdict // "" for no such check
		seen, fix    string
	}{
		"bound ignored": {func(h *hospital) http.HandlerFunc {
			return text(200, searchset(match("Patient", "p1"), link("self", h.URL+"/fhir/Patient?_count=1")))
		}, cura.VerdictOK, cura.VerdictFailed, "", "starter connection edit --profile"},
		"bound refused":                          {func(h *hospital) http.HandlerFunc { return unbounded(h, 400, outcome("error", "invalid")) }, cura.VerdictOK, cura.VerdictFailed, "counts 3", "starter connection edit --profile"},
		"needs a patient, as at Oracle and Epic": {func(*hospital) http.HandlerFunc { return text(400, outcome("error", "required")) }, cura.VerdictFailed, "", "issue required", "starter connection edit --profile"},
		"offered and not there":                  {func(*hospital) http.HandlerFunc { return text(404, "") }, cura.VerdictFailed, "", "404", "switch Patient on"},
		"throttled":                              {func(*hospital) http.HandlerFunc { return text(429, "", "Retry-After", "5") }, cura.VerdictWarning, "", "slow down", "later"},
		"in trouble":                             {func(*hospital) http.HandlerFunc { return text(500, "") }, cura.VerdictFailed, "", "500", "FHIR server"},
		"token refused":                          {func(*hospital) http.HandlerFunc { return text(401, "") }, cura.VerdictFailed, "", "401", "secret"},
		"HTML":                                   {func(*hospital) http.HandlerFunc { return text(200, "<html></html>") }, cura.VerdictFailed, "", "HTML", "sign-on"},
		"no count":                               {func(*hospital) http.HandlerFunc { return text(200, searchset(match("Patient", "p1"))) }, cura.VerdictOK, cura.VerdictOK, "no count", ""},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient", test.answer(h))
			r := h.client(t).Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Patient}})
			requireCheck(t, r, ehr.CheckRead, cura.Patient, test.read, test.seen)
			if test.params == "" {
				require.Empty(t, checks(r, ehr.CheckSearchParams))
			} else {
				requireCheck(t, r, ehr.CheckSearchParams, cura.Patient, test.params, "")
			}
			require.Contains(t, r.Checks[len(r.Checks)-1].Fix, test.fix)
		})
	}
}

func TestEndpointRefusedTokenEndsTheReads(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	for _, typ := range typeNames() {
		h.on("/fhir/"+typ, text(401, ""))
	}
	r := h.client(t).Test(t.Context(), ehr.TestOptions{})
	require.Len(t, checks(r, ehr.CheckRead), 1)
}

func TestEndpointOverPlainLoopback(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", stocked(h, cura.Patient, 1))
	address := listenPlain(t, h)
	h.on("/fhir/.well-known/smart-configuration", text(200, `{"token_endpoint":"/token"}`))
	r := ehr.Test(t.Context(), ehr.Config{BaseURL: address + "/fhir", ClientID: clientID, Secret: secret, InsecureLoopback: true},
		ehr.TestOptions{Types: []cura.ResourceType{cura.Patient}})
	requireCheck(t, r, ehr.CheckTLS, "", cura.VerdictWarning, "plain http")
	requireCheck(t, r, ehr.CheckRead, cura.Patient, cura.VerdictOK, "counts 1")
}

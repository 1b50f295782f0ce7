package sandbox

import (
	"bytes"
	"cmp"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	fhirJSON = "application/fhir+json; charset=utf-8"
	maxForm  = 1 << 20

	// The requests that are about no resource type, as faults and the log name them.
	kindToken    = "token"
	kindMetadata = "metadata"
	kindSMART    = "smart-configuration"
)

// The codes of OperationOutcome.issue.code that the sandbox uses (http://hl7.org/fhir/issue-type).
const (
	codeInvalid      = "invalid"
	codeRequired     = "required"
	codeLogin        = "login"
	codeForbidden    = "forbidden"
	codeNotFound     = "not-found"
	codeDeleted      = "deleted"
	codeNotSupported = "not-supported"
	codeThrottled    = "throttled"
	codeTransient    = "transient"
	codeExpired      = "expired"
	codeException    = "exception"
)

// problem is an answer other than success; it is written as an OperationOutcome (R4 §3.1.0.1.9).
type problem struct {
	status     int
	severity   string
	code       string
	text       string
	challenge  string // WWW-Authenticate
	allow      string // Allow
	retryAfter string // Retry-After
	etag       string
}

func fail(status int, code, text string) *problem {
	return &problem{status: status, severity: "error", code: code, text: text}
}

func (p *problem) write(w http.ResponseWriter) {
	for name, value := range map[string]string{
		"WWW-Authenticate": p.challenge, "Allow": p.allow, "Retry-After": p.retryAfter, "ETag": p.etag,
	} {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	writeJSON(w, fhirJSON, p.status, outcome(p.severity, p.code, p.text))
}

func outcome(severity, code, text string) obj {
	return obj{
		{"resourceType", "OperationOutcome"},
		{"issue", list{obj{{"severity", severity}, {"code", code}, {"diagnostics", text}}}},
	}
}

// routes is everything that the EHR answers.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/oauth/token", s.token)
	mux.HandleFunc("GET /fhir/.well-known/smart-configuration", s.smartConfiguration)
	mux.HandleFunc("GET /fhir/metadata", s.metadata)
	mux.HandleFunc("GET /fhir/{type}/{id}/_history/{version}", s.guarded("r", s.readVersion))
	mux.HandleFunc("GET /fhir/{type}/{id}/_history", s.guarded("r", s.history))
	mux.HandleFunc("GET /fhir/{type}/{id}", s.guarded("r", s.read))
	mux.HandleFunc("GET /fhir/{type}", s.guarded("s", s.search))
	mux.HandleFunc("POST /fhir/{type}/_search", s.guarded("s", s.search))
	mux.HandleFunc("GET /fhir", s.guarded("", s.page))
	mux.HandleFunc("GET /fhir/{$}", s.guarded("", s.page))
	mux.HandleFunc("/", nothingHere)
	return s.observed(mux)
}

// nothingHere answers what no other route takes.
func nothingHere(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && strings.HasPrefix(r.URL.Path, "/fhir") {
		p := fail(http.StatusMethodNotAllowed, codeNotSupported, "The sandbox offers read, vread, history and search only; see metadata")
		p.allow = "GET, HEAD"
		p.write(w)
		return
	}
	fail(http.StatusNotFound, codeNotFound, "There is nothing at this address; the FHIR base ends in /fhir").write(w)
}

// hinder applies the knobs that concern every FHIR request. It tells whether it has answered already.
func (s *Server) hinder(w http.ResponseWriter, what string) bool {
	f := s.faults.get()
	if f.HTML {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in to continue.</body></html>\n"))
		return true
	}
	v := s.faults.judge(what, s.now())
	if v.status == 0 {
		return false
	}
	p := fail(v.status, codeTransient, "The sandbox was told to fail this request")
	if v.status == http.StatusTooManyRequests {
		p.code, p.text = codeThrottled, "Too many requests; wait as Retry-After says"
	}
	p.retryAfter = v.retryAfter
	p.write(w)
	return true
}

// handler answers an authorized request.
type handler func(w http.ResponseWriter, r *http.Request, g grant) *problem

// guarded puts in front of a handler: the knobs, Accept, the bearer token, and whether the type is there and may be
// seen. permission is the SMART letter that the request needs.
func (s *Server) guarded(permission string, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		typ := r.PathValue("type")
		about := typ
		if typ == "" {
			about = s.pages.typeOf(r.URL.Query().Get(pageParam))
		}
		if s.hinder(w, about) {
			return
		}
		if p := s.check(w, r, typ, permission, h); p != nil {
			p.write(w)
		}
	}
}

func (s *Server) check(w http.ResponseWriter, r *http.Request, typ, permission string, h handler) *problem {
	if p := acceptable(r); p != nil {
		return p
	}
	g, p := s.authorize(r)
	if p != nil {
		return p
	}
	if typ != "" {
		if p := s.typeAllowed(g, typ, permission); p != nil {
			return p
		}
	}
	return h(w, r, g)
}

// typeAllowed tells whether a type is served at all, refused by a knob, or outside the grant.
func (s *Server) typeAllowed(g grant, typ, permission string) *problem {
	if !slices.Contains(s.servedTypes(), typ) {
		return fail(http.StatusNotFound, codeNotSupported, "The server does not serve this resource type; see metadata")
	}
	if slices.Contains(s.faults.get().RefuseTypes, typ) {
		p := fail(http.StatusForbidden, codeForbidden, "The client may not use this resource type")
		p.challenge = `Bearer realm="sandbox", error="insufficient_scope"`
		return p
	}
	return g.may(typ, permission)
}

// acceptable tells whether the client takes FHIR JSON (R4 §3.1.0.1.11: _format overrides Accept).
func acceptable(r *http.Request) *problem {
	p := fail(http.StatusNotAcceptable, codeNotSupported, "The sandbox answers application/fhir+json in FHIR version 4.0 only")
	if format := r.URL.Query().Get("_format"); format != "" {
		if !isJSON(strings.ReplaceAll(format, " ", "+")) {
			return p
		}
		return nil
	}
	ranges := strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",")
	empty := true
	for _, part := range ranges {
		if strings.TrimSpace(part) == "" {
			continue
		}
		empty = false
		if isJSON(part) {
			return nil
		}
	}
	if empty {
		return nil
	}
	return p
}

// isJSON tells whether a media range takes in FHIR R4 JSON (RFC 9110 §12.5.1; R4 §2.1.0.6 fhirVersion).
func isJSON(mediaRange string) bool {
	t, params, err := mime.ParseMediaType(mediaRange)
	if err != nil {
		return false
	}
	if q, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64); err != nil || q == 0 {
		return false
	}
	if v := params["fhirversion"]; v != "" && v != "4.0" {
		return false
	}
	switch t {
	case "*/*", "application/*", "application/fhir+json", "application/json", "application/json+fhir", "json", "text/json":
		return true
	default:
		return false
	}
}

func (s *Server) read(w http.ResponseWriter, r *http.Request, _ grant) *problem {
	typ, id := r.PathValue("type"), r.PathValue("id")
	versions := s.store.versionsOf(typ, id)
	if len(versions) == 0 {
		return fail(http.StatusNotFound, codeNotFound, "The server has no such resource")
	}
	return s.writeResource(w, typ, id, versions[len(versions)-1])
}

// readVersion is vread (R4 §3.1.0.3).
func (s *Server) readVersion(w http.ResponseWriter, r *http.Request, _ grant) *problem {
	typ, id := r.PathValue("type"), r.PathValue("id")
	for _, v := range s.store.versionsOf(typ, id) {
		if v.id == r.PathValue("version") {
			return s.writeResource(w, typ, id, v)
		}
	}
	return fail(http.StatusNotFound, codeNotFound, "The server has no such version of the resource")
}

func (s *Server) writeResource(w http.ResponseWriter, typ, id string, v version) *problem {
	f := s.faults.get()
	if v.deleted {
		p := fail(http.StatusGone, codeDeleted, "The resource was deleted")
		p.etag = etag(v)
		return p
	}
	if slices.Contains(f.Poison, typ+"/"+id) {
		return poisoned()
	}
	raw, err := s.served(f, typ, id, v)
	if err != nil {
		return broken(err)
	}
	if f.RequiredSearch != modeEpic { // Epic has no versions (DOMAIN §0.2, §6)
		w.Header().Set("ETag", etag(v))
		w.Header().Set("Last-Modified", v.updatedAt().Add(f.skew()).Format(http.TimeFormat))
	}
	w.Header().Set("Content-Type", fhirJSON)
	//nolint:gosec // G705: JSON under its own media type, no page
	_, _ = w.Write(raw) // a client that is gone cannot be told
	return nil
}

// poisoned is Cerner's answer when one resource of the page cannot be read (DOMAIN §5).
func poisoned() *problem {
	p := fail(http.StatusInternalServerError, codeRequired, "A resource cannot be read")
	p.severity = "fatal"
	return p
}

func broken(err error) *problem {
	return fail(http.StatusInternalServerError, codeException, err.Error())
}

// etag is the weak tag of a version (R4 §3.1.0.1.3).
func etag(v version) string { return `W/"` + v.id + `"` }

// history is the history of one resource, the newest version first (R4 §3.1.0.8).
func (s *Server) history(w http.ResponseWriter, r *http.Request, _ grant) *problem {
	typ, id := r.PathValue("type"), r.PathValue("id")
	versions := s.store.versionsOf(typ, id)
	if len(versions) == 0 {
		return fail(http.StatusNotFound, codeNotFound, "The server has no such resource")
	}
	f := s.faults.get()
	var b bundle
	b.begin("history")
	b.total(len(versions))
	b.link("self", s.base(r)+"/"+typ+"/"+id+"/_history")
	for i, v := range slices.Backward(versions) {
		method, status := http.MethodPut, "200 OK"
		switch {
		case v.deleted:
			method, status = http.MethodDelete, "204 No Content"
		case i == 0:
			status = "201 Created"
		}
		var raw []byte
		if !v.deleted {
			var err error
			if raw, err = s.served(f, typ, id, v); err != nil {
				return broken(err)
			}
		}
		b.entry(s.base(r)+"/"+typ+"/"+id, raw, "request", obj{{"method", method}, {"url", typ + "/" + id}},
			"response", obj{
				{"status", status},
				{"etag", etag(v)},
				{"lastModified", formatInstant(v.updatedAt().Add(f.skew()))},
			})
	}
	b.write(w)
	return nil
}

// served gives a resource as it goes out: the knobs that change content are applied here.
func (s *Server) served(f Faults, typ, id string, v version) ([]byte, error) {
	raw, err := s.store.vault.get(v.place)
	if err != nil {
		return nil, err
	}
	if f.ClockSkewSeconds != 0 {
		meta := set(get(raw, "meta"), "lastUpdated", quote(formatInstant(v.updatedAt().Add(f.skew()))))
		raw = set(raw, "meta", meta)
	}
	if f.RequiredSearch == modeEpic {
		if meta := drop(drop(get(raw, "meta"), "versionId"), "lastUpdated"); len(members(meta)) == 0 {
			raw = drop(raw, "meta")
		} else {
			raw = set(raw, "meta", meta)
		}
	}
	if f.breaks(typ, id) {
		raw = malform(typ, id, raw)
	}
	if n := s.oversize(f, typ, id); n > 0 {
		const before, after = `{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">`, `</div>"}`
		text := slices.Concat([]byte(before), bytes.Repeat([]byte("x"), n), []byte(after))
		raw = set(raw, "text", text, "meta", "id", "resourceType")
	}
	return raw, nil
}

// oversize gives how many bytes of narrative the resource gets, 0 for none.
func (s *Server) oversize(f Faults, typ, id string) int {
	if n := f.Oversize[typ+"/"+id]; n > 0 {
		return n
	}
	if n := f.Oversize[typ]; n > 0 && id == s.store.first(typ) {
		return n
	}
	return 0
}

// malform gives the resource with a required element missing or a primitive of the wrong form.
func malform(typ, id string, raw []byte) []byte {
	required := map[string][]string{
		"AllergyIntolerance":  {"patient"},
		"Condition":           {"subject"},
		"Consent":             {"status", "scope"},
		"Encounter":           {"status", "class"},
		"MedicationRequest":   {"status", "intent"},
		"MedicationStatement": {"status", "subject"},
		"Observation":         {"status", "code"},
		"Procedure":           {"status", "subject"},
	}[typ]
	// The wrong primitive is one more way to break it, and the only one for types without required elements.
	n := int(hashOf(id, typ) % uint32(len(required)+1)) //nolint:gosec // G115: a handful
	if n < len(required) {
		return drop(raw, required[n])
	}
	if typ == "Patient" {
		return set(raw, "birthDate", []byte(`"13/07/1985"`), "id", "resourceType")
	}
	return set(raw, "language", []byte(`42`), "meta", "id", "resourceType")
}

// retryAfter writes the header in one of its two forms (RFC 9110 §10.2.3); "" for 0.
func retryAfter(seconds int, asDate bool, now time.Time) string {
	switch {
	case seconds == 0:
		return ""
	case asDate:
		return now.Add(time.Duration(seconds) * time.Second).UTC().Format(http.TimeFormat)
	default:
		return strconv.Itoa(seconds)
	}
}

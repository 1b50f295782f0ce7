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
	codeStructure    = "structure"
	codeValue        = "value"
	codeRule         = "business-rule"
	codeConflict     = "conflict"
	codeMultiple     = "multiple-matches"
	codeTooCostly    = "too-costly"
)

// problem is an answer other than success; it is written as an OperationOutcome (R4 §3.1.0.1.9).
type problem struct {
	status     int
	severity   string
	code       string
	text       string
	expression string // the element that it is about, "" when it is about none
	challenge  string // WWW-Authenticate
	allow      string // Allow
	retryAfter string // Retry-After
	etag       string
	empty      bool // no body at all
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
	if p.empty {
		w.WriteHeader(p.status)
		return
	}
	issue := obj{{"severity", p.severity}, {"code", p.code}, {"diagnostics", p.text}}
	if p.expression != "" {
		issue = append(issue, field{"expression", list{p.expression}})
	}
	writeJSON(w, fhirJSON, p.status, obj{{"resourceType", "OperationOutcome"}, {"issue", list{issue}}})
}

// routes is everything that the EHR answers.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/oauth/token", s.token)
	mux.HandleFunc("GET /fhir/.well-known/smart-configuration", s.smartConfiguration)
	mux.HandleFunc("GET /fhir/metadata", s.metadata)
	if !s.vendor.hidesVersions {
		mux.HandleFunc("GET /fhir/{type}/{id}/_history/{version}", s.guarded("r", s.readVersion))
		mux.HandleFunc("GET /fhir/{type}/{id}/_history", s.guarded("r", s.history))
	}
	mux.HandleFunc("GET /fhir/{type}/{id}", s.guarded("r", s.read))
	mux.HandleFunc("GET /fhir/{type}", s.guarded("s", s.search))
	mux.HandleFunc("POST /fhir/{type}", s.guarded("c", s.create))
	mux.HandleFunc("PUT /fhir/{type}/{id}", s.guarded("u", s.update))
	mux.HandleFunc("POST /fhir/{type}/_search", s.guarded("s", s.search))
	mux.HandleFunc("POST /fhir/{type}/$match", s.guarded("s", s.match))
	mux.HandleFunc("GET /fhir", s.guarded("", s.page))
	mux.HandleFunc("GET /fhir/{$}", s.guarded("", s.page))
	mux.HandleFunc("/", nothingHere)
	return s.observed(mux)
}

// nothingHere answers what no other route takes.
func nothingHere(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && strings.HasPrefix(r.URL.Path, "/fhir") {
		notAllowed().write(w)
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
	v.problem().write(w)
	return true
}

// problem is the answer to a request that the knobs refuse.
func (v verdict) problem() *problem {
	p := fail(v.status, codeTransient, "The sandbox was told to fail this request")
	if v.throttled {
		p.code, p.text = codeThrottled, "Too many requests; wait as Retry-After says"
	}
	p.retryAfter = v.retryAfter
	return p
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
			about = s.pages.typeOf(askedPage(r.URL.Query()))
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
	if p := s.acceptable(r); p != nil {
		return p
	}
	g, p := s.authorize(r)
	if p != nil {
		return p
	}
	if s.vendor.demandsOfAll != nil {
		if p := s.vendor.demandsOfAll(r); p != nil {
			return p
		}
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
	if !s.vendor.writes.offers(typ, permission) {
		return notAllowed()
	}
	if !s.serves(typ) {
		return fail(http.StatusNotFound, codeNotSupported, "The server does not serve this resource type; see metadata")
	}
	if s.createOnly(typ) && permission != "c" && !s.store.based(typ) {
		return s.vendor.refuse(typ, permission)
	}
	if slices.Contains(s.faults.get().RefuseTypes, typ) {
		if s.vendor.uncovered != nil {
			return s.vendor.uncovered(typ, permission)
		}
		p := fail(http.StatusForbidden, codeForbidden, "The client may not use this resource type")
		p.challenge = `Bearer realm="sandbox", error="insufficient_scope"`
		return p
	}
	if g.allows(typ, permission) {
		return nil
	}
	return s.vendor.refuse(typ, permission)
}

// notAllowed is the answer to what isn't offered on a type or an address.
func notAllowed() *problem {
	p := fail(http.StatusMethodNotAllowed, codeNotSupported, "The server doesn't offer this interaction; see metadata")
	p.allow = "GET, HEAD"
	return p
}

// acceptable tells whether the client takes FHIR JSON (R4 §3.1.0.1.11: _format overrides Accept).
func (s *Server) acceptable(r *http.Request) *problem {
	p := fail(http.StatusNotAcceptable, codeNotSupported, "The sandbox answers application/fhir+json in FHIR version 4.0 only")
	if format := r.URL.Query().Get("_format"); format != "" {
		if !isJSON(strings.ReplaceAll(format, " ", "+")) {
			return p
		}
		return nil
	}
	ranges := strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",")
	if s.vendor.fhirOnly {
		if slices.ContainsFunc(ranges, func(one string) bool {
			t, _, err := mime.ParseMediaType(one)
			return err == nil && t == "application/fhir+json"
		}) {
			return nil
		}
		return p
	}
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
	if s.createOnly(typ) && versions[0].written {
		return s.vendor.refuse(typ, "r")
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
		if s.vendor.gone() == http.StatusNotFound {
			return fail(http.StatusNotFound, codeNotFound, "The server has no such resource")
		}
		p := fail(http.StatusGone, codeDeleted, "The resource was deleted")
		p.etag = etag(&v)
		return p
	}
	if slices.Contains(f.Poison, typ+"/"+id) {
		return poisoned()
	}
	raw, err := s.rendering(f, typ)(id, &v)
	if err != nil {
		return broken(err)
	}
	if !s.vendor.hidesVersions {
		w.Header().Set("ETag", etag(&v))
		w.Header().Set("Last-Modified", v.updatedAt().Add(f.skew()).Format(http.TimeFormat))
	}
	w.Header().Set("Content-Type", fhirJSON)
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
func etag(v *version) string { return `W/"` + v.id + `"` }

// history is the history of one resource, the newest version first (R4 §3.1.0.8).
func (s *Server) history(w http.ResponseWriter, r *http.Request, _ grant) *problem {
	typ, id := r.PathValue("type"), r.PathValue("id")
	versions := s.store.versionsOf(typ, id)
	if len(versions) == 0 {
		return fail(http.StatusNotFound, codeNotFound, "The server has no such resource")
	}
	f := s.faults.get()
	b := newBundle("history", new(bytes.Buffer))
	b.total(len(versions))
	b.link("self", s.base(r)+"/"+typ+"/"+id+"/_history")
	for i := len(versions) - 1; i >= 0; i-- {
		v := &versions[i]
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
			if raw, err = s.rendering(f, typ)(id, v); err != nil {
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

// rendering gives what makes the resources of a type as they go out: the knobs that change content are applied here.
// Without any, they go out as they lie in the vault. What it gives must not be changed.
func (s *Server) rendering(f Faults, typ string) func(id string, v *version) ([]byte, error) {
	share := f.share(typ)
	largest := ""
	if f.Oversize[typ] > 0 {
		largest = s.store.first(typ)
	}
	skewed := f.ClockSkewSeconds != 0 && !s.vendor.hidesVersions
	return func(id string, v *version) ([]byte, error) {
		raw, err := s.store.vault.get(v.place)
		if err != nil {
			return nil, err
		}
		if skewed {
			meta := set(get(raw, "meta"), "lastUpdated", quote(formatInstant(v.updatedAt().Add(f.skew()))))
			raw = set(raw, "meta", meta)
		}
		if slices.Contains(f.Untimed, typ+"/"+id) {
			raw = set(raw, "meta", drop(get(raw, "meta"), "lastUpdated"))
		}
		if share > 0 && breaks(share, typ, id) {
			raw = malform(typ, id, raw)
		}
		if len(f.Oversize) == 0 {
			return raw, nil
		}
		n := f.Oversize[typ+"/"+id]
		if n == 0 && id == largest {
			n = f.Oversize[typ]
		}
		if n > 0 {
			const before, after = `{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">`, `</div>"}`
			text := slices.Concat([]byte(before), bytes.Repeat([]byte("x"), n), []byte(after))
			raw = set(raw, "text", text, "meta", "id", "resourceType")
		}
		return raw, nil
	}
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

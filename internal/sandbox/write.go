package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxWrite is the largest body that is taken: an attachment of 5 MiB (DOMAIN §4, US Core 9) in base64, and room.
const maxWrite = 10 << 20

// writableTypes are what clients may write, where the vendor takes it.
func writableTypes() []string {
	return []string{"Condition", "Consent", "DocumentReference", "Procedure"}
}

// writeManners is what a vendor takes from clients, and how it answers. The zero value takes nothing.
type writeManners struct {
	creates, updates []string // types
	// conditional tells whether If-None-Exist is understood; else it is ignored.
	conditional bool
	// needsIfMatch refuses an update without If-Match.
	needsIfMatch bool
	// stale is the status of an update whose If-Match is another version; 0: 412.
	stale int
	// unprocessable is the status of content that is refused; 0: 422.
	unprocessable int
	// check looks at a resource that is good R4, and at how it is written; nil takes all.
	check func(method, typ string, raw []byte) *problem
	// kept gives what is stored of a resource; nil: all of it.
	kept func(typ string, raw []byte) []byte
	// holds are types that are kept for sign-off, whatever Faults.Writes says.
	holds []string
	// createOnly are types whose read and search clients aren't registered for: they don't read back what they wrote.
	createOnly []string
	// answer is how much a success tells.
	answer answerStyle
}

// answerStyle is what the answer to a successful write has.
type answerStyle int

const (
	// answerFull has what R4 asks for: Location with the version, ETag, and the body that Prefer names.
	answerFull answerStyle = iota
	// answerEmpty never has a body.
	answerEmpty
	// answerTerse has a relative Location and nothing else.
	answerTerse
)

// writesAll are the manners of a general FHIR store.
func writesAll() writeManners {
	return writeManners{creates: writableTypes(), updates: writableTypes(), conditional: true}
}

// offers tells whether an interaction is offered on a type; permission is its SMART letter. What isn't a write is.
func (m *writeManners) offers(typ, permission string) bool {
	switch permission {
	case "c":
		return slices.Contains(m.creates, typ)
	case "u":
		return slices.Contains(m.updates, typ)
	default:
		return true
	}
}

// createOnly tells whether clients don't read back what they write of a type.
func (s *Server) createOnly(typ string) bool { return slices.Contains(s.vendor.writes.createOnly, typ) }

// create is R4 §3.1.0.8.
func (s *Server) create(w http.ResponseWriter, r *http.Request, _ grant) *problem {
	return s.take(w, r, s.created)
}

// update is R4 §3.1.0.4.
func (s *Server) update(w http.ResponseWriter, r *http.Request, _ grant) *problem {
	return s.take(w, r, s.updated)
}

// taken is what a write has come to.
type taken struct {
	status  int
	typ, id string
	version version
}

// take answers a write, as the knobs for writes have it.
func (s *Server) take(w http.ResponseWriter, r *http.Request, process func(*http.Request, []byte) (taken, *problem)) *problem {
	a := arrivingOf(r)
	f := s.faults.get().Writes
	trouble := f.trouble(s.faults.seed, a)
	switch trouble {
	case troubleStuck:
		s.hang(r)
	case troubleThrottle, troubleError, troubleUnavailable:
		return trouble.problem()
	case troubleResetBefore:
		reset(r)
	case troubleNone, troubleTimeoutAfter, troubleResetAfter, troubleErrorAfter:
	}
	if !wait(r, time.Duration(f.LatencyBeforeMS)*time.Millisecond) {
		panic(http.ErrAbortHandler) // the client has gone: nothing was done
	}
	raw, p := a.content(r)
	var done taken
	if p == nil {
		done, p = process(r, raw)
	}
	if p == nil {
		s.arrivals.processed(a, done.id)
	}
	if !wait(r, time.Duration(f.LatencyMS)*time.Millisecond) {
		panic(http.ErrAbortHandler)
	}
	if p != nil {
		return p
	}
	switch trouble {
	case troubleTimeoutAfter:
		s.hang(r)
	case troubleResetAfter:
		reset(r)
	case troubleErrorAfter:
		return trouble.problem()
	case troubleNone, troubleStuck, troubleThrottle, troubleError, troubleUnavailable, troubleResetBefore:
	}
	return s.writeTaken(w, r, done)
}

// content is the body of a write, compacted.
func (a *arriving) content(r *http.Request) ([]byte, *problem) {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != "application/fhir+json" && t != "application/json" {
		return nil, fail(http.StatusUnsupportedMediaType, codeNotSupported, "Resources are written as application/fhir+json")
	}
	if _, ok := errors.AsType[*http.MaxBytesError](a.err); ok {
		return nil, fail(http.StatusRequestEntityTooLarge, codeTooCostly, "The resource is larger than the server takes")
	}
	if a.err != nil {
		return nil, fail(http.StatusBadRequest, codeInvalid, "The body of the request broke off")
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, a.body); err != nil || !bytes.HasPrefix(compact.Bytes(), []byte("{")) {
		return nil, fail(http.StatusBadRequest, codeStructure, "The body isn't a JSON object")
	}
	raw := compact.Bytes()
	if typ := getText(raw, "resourceType"); typ != r.PathValue("type") {
		return nil, about(fail(http.StatusBadRequest, codeInvalid, "The body is a "+typ+", which isn't written at this address"), "resourceType")
	}
	return raw, nil
}

// created makes a resource, unless If-None-Exist finds one (R4 §3.1.0.8.1).
func (s *Server) created(r *http.Request, raw []byte) (taken, *problem) {
	typ, manners := r.PathValue("type"), &s.vendor.writes
	if p := s.checkContent(r, typ, raw); p != nil {
		return taken{}, p
	}
	s.writes.Lock()
	defer s.writes.Unlock()
	if condition := r.Header.Get("If-None-Exist"); condition != "" && manners.conditional {
		found, p := s.matching(typ, condition)
		switch {
		case p != nil:
			return taken{}, p
		case len(found) > 1:
			return taken{}, fail(http.StatusPreconditionFailed, codeMultiple, "If-None-Exist matches several resources")
		case len(found) == 1:
			return taken{http.StatusOK, typ, found[0].id, found[0].version}, nil
		}
	}
	// R4 §3.1.0.8: the id of the body is ignored.
	id := s.store.servedID(typ, "sandbox-"+randomText())
	return s.accept(http.StatusCreated, typ, set(drop(raw, "id"), "id", quote(id), "resourceType"))
}

// updated changes a resource (R4 §3.1.0.4, §3.1.0.5).
func (s *Server) updated(r *http.Request, raw []byte) (taken, *problem) {
	typ, id, manners := r.PathValue("type"), r.PathValue("id"), &s.vendor.writes
	if getText(raw, "id") != id {
		return taken{}, about(fail(http.StatusBadRequest, codeInvalid, "The id of the body isn't that of the address"), typ+".id")
	}
	if p := s.checkContent(r, typ, raw); p != nil {
		return taken{}, p
	}
	s.writes.Lock()
	defer s.writes.Unlock()
	versions := s.store.versionsOf(typ, id)
	if len(versions) == 0 {
		// R4 §3.1.0.4.2: a server that gives the ids itself answers so.
		return taken{}, fail(http.StatusMethodNotAllowed, codeNotSupported, "The server gives ids itself; create the resource with POST")
	}
	newest := versions[len(versions)-1]
	if newest.deleted {
		return taken{}, fail(s.vendor.gone(), codeDeleted, "The resource was deleted")
	}
	switch match := r.Header.Get("If-Match"); {
	case match == "" && manners.needsIfMatch:
		return taken{}, fail(http.StatusPreconditionFailed, codeRequired, "If-Match is required")
	case match != "" && strings.TrimPrefix(match, "W/") != `"`+newest.id+`"`:
		status := http.StatusPreconditionFailed
		if manners.stale != 0 {
			status = manners.stale
		}
		return taken{}, fail(status, codeConflict, "If-Match names version "+match+"; the newest is "+etag(&newest))
	case s.store.isHeld(typ, id):
		return taken{}, fail(http.StatusConflict, codeConflict, "A change of the resource waits for sign-off")
	}
	return s.accept(http.StatusOK, typ, raw)
}

// accept stores what a client has written.
func (s *Server) accept(status int, typ string, raw []byte) (taken, *problem) {
	f, manners := s.faults.get(), &s.vendor.writes
	if manners.kept != nil {
		raw = manners.kept(typ, raw)
	}
	held := f.Writes.Hold || slices.Contains(manners.holds, typ)
	done, err := s.store.write(raw, writeMode{late: f.lateBy, written: true, held: held})
	if err == nil {
		err = s.log.append(logLine{Put: done.raw, Written: true, Held: held})
	}
	if err != nil {
		return taken{}, broken(err)
	}
	return taken{status, typ, done.ID, done.version}, nil
}

// matching finds what If-None-Exist asks for, among what nobody sees yet too.
func (s *Server) matching(typ, condition string) ([]heldWrite, *problem) {
	values, err := url.ParseQuery(strings.TrimPrefix(condition, "?"))
	if err != nil || len(values) == 0 {
		return nil, fail(http.StatusPreconditionFailed, codeInvalid, "If-None-Exist isn't a query such as identifier=system|value")
	}
	q, p := parseQuery(s.vendor, typ, values, Faults{}, true, s.now())
	if p != nil {
		return nil, p
	}
	return s.store.everyMatch(q.search()), nil
}

// writeTaken answers a write that was processed.
func (s *Server) writeTaken(w http.ResponseWriter, r *http.Request, done taken) *problem {
	f, h := s.faults.get(), w.Header()
	if s.vendor.writes.answer == answerTerse {
		h.Set("Location", done.typ+"/"+done.id)
		w.WriteHeader(done.status)
		return nil
	}
	location := s.base(r) + "/" + done.typ + "/" + done.id
	if !s.vendor.hidesVersions {
		location += "/_history/" + done.version.id
		h.Set("ETag", etag(&done.version))
		h.Set("Last-Modified", done.version.updatedAt().Add(f.skew()).Format(http.TimeFormat))
	}
	h.Set("Location", location)
	// R4 §3.1.0.1.6: without a preference, the server decides.
	prefer := r.Header.Get("Prefer")
	if s.vendor.writes.answer != answerFull || strings.Contains(prefer, "return=minimal") {
		w.WriteHeader(done.status)
		return nil
	}
	raw, err := s.rendering(f, done.typ)(done.id, &done.version)
	if err != nil {
		return broken(err)
	}
	h.Set("Content-Type", fhirJSON)
	w.WriteHeader(done.status)
	_, _ = w.Write(raw) // a client that is gone cannot be told
	return nil
}

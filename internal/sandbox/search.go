package sandbox

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// search answers the first page of a search (R4 §3.1.1).
func (s *Server) search(w http.ResponseWriter, r *http.Request, _ grant) *problem {
	values, p := parameters(w, r)
	if p != nil {
		return p
	}
	f := s.faults.get()
	strict := strings.Contains(r.Header.Get("Prefer"), "handling=strict")
	typ := r.PathValue("type")
	if typ == groupType {
		return fail(http.StatusBadRequest, codeNotSupported, "A Group is read by its id; the server offers no search for it")
	}
	q, p := parseQuery(s.vendor, typ, values, f, strict, s.now())
	if p != nil {
		return p
	}
	if s.createOnly(typ) {
		q.tests = append(q.tests, func(e *entry, _ *version) bool { return !e.created() })
	}
	self := s.base(r) + "/" + q.typ
	if len(q.honoured) > 0 {
		self += "?" + q.honoured.Encode()
	}
	if q.countOnly {
		return s.writeCount(w, q, self)
	}
	if s.vendor.nearPatients && q.typ == "Patient" && q.has("family", "given", "birthdate", "gender") {
		return s.searchNear(w, r, f, q, self)
	}
	if s.vendor.paging == pagingOffset {
		return s.writeLive(w, r, f, q, self)
	}
	hits := s.store.find(q.search())
	order(hits, q.sort)
	found := &results{
		typ: q.typ, hits: hits, count: q.count, self: self, idsOnly: q.idsOnly, passed: url.Values{},
		shared: s.vendor.paging == pagingGetPages,
	}
	for _, name := range s.vendor.passed {
		if values.Has(name) {
			found.passed[name] = values[name]
		}
	}
	if s.vendor.wholeFirstPage != nil && s.vendor.wholeFirstPage(q) {
		found.first = len(hits)
	}
	found.skip = f.SkipRows && len(hits) > found.count && s.pages.skips(q.key())
	if f.EmptyPage {
		return s.writeFrozen(w, r, f, found, part{next: 0, more: true})
	}
	return s.writeFrozen(w, r, f, found, found.part(0, f))
}

// key tells searches apart, whatever the size of their pages.
func (q *query) key() string {
	params := maps.Clone(q.given)
	for _, name := range []string{"_count", "_offset", "_cursor"} {
		delete(params, name)
	}
	return q.typ + "?" + params.Encode()
}

// writeCount answers _summary=count: the total alone (R4 §3.1.1.5.5).
func (s *Server) writeCount(w http.ResponseWriter, q *query, self string) *problem {
	b := newBundle("searchset", new(bytes.Buffer))
	b.total(len(s.store.find(q.search())))
	b.link("self", self)
	b.write(w)
	return nil
}

// page answers a page that a next link named. The link is opaque to clients (R4 §3.1.0.1.14 paging; DOMAIN §2).
func (s *Server) page(w http.ResponseWriter, r *http.Request, g grant) *problem {
	asked := askedPage(r.URL.Query())
	if asked == "" {
		return fail(http.StatusBadRequest, codeNotSupported, "The sandbox offers no search across types; search one type, or follow a next link")
	}
	f := s.faults.get()
	found, offset, p := s.pages.follow(asked, f, s.now())
	if p != nil {
		return p
	}
	if p := s.typeAllowed(g, found.typ, "s"); p != nil {
		return p
	}
	if p := s.tooDeep(f, offset); p != nil {
		return p
	}
	return s.writeFrozen(w, r, f, found, found.part(offset, f))
}

// tooDeep refuses a page beyond the depth that the knob or the vendor sets.
func (s *Server) tooDeep(f Faults, offset int) *problem {
	depth := s.vendor.pageDepth
	if f.PageDepth > 0 {
		depth = f.PageDepth
	}
	if depth == 0 || offset <= depth {
		return nil
	}
	return fail(http.StatusBadRequest, codeInvalid, "Search offset exceeds maximum (got "+strconv.Itoa(offset)+", max "+strconv.Itoa(depth)+")")
}

// writeFrozen writes one page of results that were found once.
func (s *Server) writeFrozen(w http.ResponseWriter, r *http.Request, f Faults, found *results, p part) *problem {
	return s.writePage(w, r, f, page{
		typ: found.typ, self: found.self, next: s.nextFrozen(r, f, found, p), total: len(found.hits), found: len(found.hits) > 0,
		hits: p.hits, idsOnly: found.idsOnly,
	})
}

// nextFrozen is the link to the page behind p, "" when there is none.
func (s *Server) nextFrozen(r *http.Request, f Faults, found *results, p part) string {
	offset := p.next
	switch {
	case f.NextLoop:
		offset = 0 // the page at 0 links to itself
	case f.NextOtherHost != "" && !p.more:
		// Also a search of one page shows the knob.
	case !p.more:
		return ""
	}
	params := maps.Clone(found.passed)
	if params == nil {
		params = url.Values{}
	}
	token := s.pages.token(found, offset, s.now())
	if found.shared {
		params.Set(getPagesParam, token)
		params.Set(getPagesOffsetParam, strconv.Itoa(offset))
		params.Set("_count", strconv.Itoa(found.count))
		params.Set("_bundletype", "searchset")
	} else {
		params.Set(pageParam, token)
	}
	return s.nextURL(r, f, "?"+params.Encode())
}

// nextURL is a next link to a place below the base.
func (s *Server) nextURL(r *http.Request, f Faults, place string) string {
	switch {
	case f.NextOtherHost != "":
		return strings.TrimRight(f.NextOtherHost, "/") + "/fhir" + place
	case f.RelativeNext:
		return "/fhir" + place
	default:
		return s.base(r) + place
	}
}

// writeLive writes a page that is a search of its own, by offset or cursor: what changes between two pages moves rows
// (DOMAIN §2, Medplum).
func (s *Server) writeLive(w http.ResponseWriter, r *http.Request, f Faults, q *query, self string) *problem {
	begins := q.behind == nil && !q.offsetSet
	if !begins {
		if p := s.pages.visit(r.URL.RawQuery, f, s.now()); p != nil {
			return p
		}
	}
	if p := s.tooDeep(f, q.offset); p != nil {
		return p
	}
	if begins && f.EmptyPage {
		q.honoured.Set("_offset", "0")
		return s.writePage(w, r, f, page{typ: q.typ, self: self, next: s.nextLive(r, f, q), total: -1})
	}
	by := q.sort
	if by == "" {
		by = "_lastUpdated" // as rows lie in a table that is only added to
	}
	repeated := 0
	if f.DuplicateRows && (q.offset > 0 || q.behind != nil) {
		repeated = 1 // the last row of the page before
	}
	skipped, behind := max(0, q.offset-repeated), q.behind
	if behind != nil {
		behind = &row{behind.updated, behind.place - repeated}
	}
	hits := s.store.window(q.search(), by, behind, skipped, repeated+q.count+2)
	more := len(hits) > repeated+q.count
	rest := hits
	if more {
		rest = hits[repeated+q.count:]
		hits = hits[:repeated+q.count]
	}
	skip := begins && f.SkipRows && more && s.pages.skips(q.key())
	next := ""
	switch {
	case f.NextLoop:
		q.honoured.Set("_offset", strconv.Itoa(q.offset))
		next = s.nextLive(r, f, q)
	case !more && f.NextOtherHost == "":
	case q.sort == "_lastUpdated" && !q.offsetSet && len(hits) > 0:
		last := hits[len(hits)-1]
		if skip {
			last = rest[0]
		}
		q.honoured.Set("_cursor", row{last.version.updated, last.entry.place}.String())
		next = s.nextLive(r, f, q)
	default:
		offset := q.offset + len(hits) - repeated
		if skip {
			offset++
		}
		q.honoured.Set("_offset", strconv.Itoa(offset))
		next = s.nextLive(r, f, q)
	}
	return s.writePage(w, r, f, page{typ: q.typ, self: self, next: next, total: -1, found: len(hits) > 0, hits: hits, idsOnly: q.idsOnly})
}

// nextLive is the link to the search itself, at the place that its parameters name.
func (s *Server) nextLive(r *http.Request, f Faults, q *query) string {
	query := q.honoured.Encode()
	s.pages.give(query, s.now())
	return s.nextURL(r, f, "/"+q.typ+"?"+query)
}

// page is what one answer to a search shows.
type page struct {
	typ, self, next string
	total           int // -1: not told
	found           bool
	hits            []hit
	scores          []float64 // of the hits; nil: not scored
	idsOnly         bool
}

// writePage writes one page of a search as a searchset.
func (s *Server) writePage(w http.ResponseWriter, r *http.Request, f Faults, p page) *problem {
	entries := s.buffers.take()
	defer s.buffers.give(entries)
	b := newBundle("searchset", entries)
	if !f.NoTotal && !s.vendor.noTotal && p.total >= 0 {
		b.total(p.total)
	}
	b.link("self", p.self)
	if p.next != "" {
		b.link("next", p.next)
	}
	base := s.base(r) + "/" + p.typ + "/"
	rendered := s.rendering(f, p.typ)
	for i, h := range p.hits {
		if p.idsOnly {
			b.match(base, h.entry.id, idOnly(f, p.typ, h))
			continue
		}
		if len(f.Poison) > 0 && slices.Contains(f.Poison, p.typ+"/"+h.entry.id) {
			return poisoned()
		}
		raw, err := rendered(h.entry.id, h.version)
		if err != nil {
			return broken(err)
		}
		if p.scores == nil {
			b.match(base, h.entry.id, raw)
			continue
		}
		b.entry(base+h.entry.id, raw, "search", obj{
			{"extension", list{obj{{"url", "http://hl7.org/fhir/StructureDefinition/match-grade"}, {"valueCode", grade(p.scores[i])}}}},
			{"mode", "match"},
			{"score", json.Number(strconv.FormatFloat(p.scores[i], 'f', 2, 64))},
		})
	}
	if s.vendor.note != nil {
		b.entry("", b.encode(s.vendor.note(p.found)), "search", obj{{"mode", "outcome"}})
	}
	b.write(w)
	return nil
}

// idOnly is what _elements=id leaves of a resource: nothing of its content is read, so that it comes also of one that
// can't be rendered.
func idOnly(f Faults, typ string, h hit) []byte {
	const subsetted = `"tag":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}]` // R4 §3.1.1.5.9
	raw := append([]byte(`{"resourceType":"`+typ+`","id":`), quote(h.entry.id)...)
	raw = append(append(raw, `,"meta":{"versionId":`...), quote(h.version.id)...)
	raw = append(append(raw, `,"lastUpdated":`...), quote(formatInstant(h.version.updatedAt().Add(f.skew())))...)
	return append(append(append(raw, ','), subsetted...), '}', '}')
}

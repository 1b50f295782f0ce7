package sandbox

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
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
	q, p := parseQuery(r.PathValue("type"), values, f, strict, s.now())
	if p != nil {
		return p
	}
	hits := s.store.find(q.typ, q.patient, q.matches)
	order(hits, q.sort, f)

	self := s.base(r) + "/" + q.typ
	if len(q.honoured) > 0 {
		self += "?" + q.honoured.Encode()
	}
	if q.countOnly {
		var b bundle
		b.begin("searchset")
		b.total(len(hits)) // R4 §3.1.1.5.5: _summary=count is the total alone
		b.link("self", self)
		b.write(w)
		return nil
	}
	found := &results{typ: q.typ, hits: hits, count: q.count, self: self}
	if f.EmptyPage {
		return s.writePage(w, r, f, found, part{next: 0, more: true})
	}
	return s.writePage(w, r, f, found, found.part(0, f))
}

// order sorts hits. Oracle Health answers the latest first (DOMAIN §2).
func order(hits []hit, by string, f Faults) {
	if by == "" && f.RequiredSearch == modeOracle {
		by = "-_lastUpdated"
	}
	older := func(a, b hit) int { return cmp.Compare(a.version.updated, b.version.updated) }
	switch by {
	case "_id":
		slices.SortStableFunc(hits, func(a, b hit) int { return strings.Compare(a.entry.id, b.entry.id) })
	case "_lastUpdated":
		slices.SortStableFunc(hits, older)
	case "-_lastUpdated":
		slices.SortStableFunc(hits, func(a, b hit) int { return older(b, a) })
	}
}

// page answers a page that a next link named. The link is opaque to clients (R4 §3.1.0.1.14 paging; DOMAIN §2).
func (s *Server) page(w http.ResponseWriter, r *http.Request, g grant) *problem {
	token := r.URL.Query().Get(pageParam)
	if token == "" {
		return fail(http.StatusBadRequest, codeNotSupported, "The sandbox offers no search across types; search one type, or follow a next link")
	}
	f := s.faults.get()
	found, offset, p := s.pages.follow(token, f, s.now())
	if p != nil {
		return p
	}
	if p := s.typeAllowed(g, found.typ, "s"); p != nil {
		return p
	}
	return s.writePage(w, r, f, found, found.part(offset, f))
}

// writePage writes one page of a search as a searchset.
func (s *Server) writePage(w http.ResponseWriter, r *http.Request, f Faults, found *results, p part) *problem {
	var b bundle
	b.begin("searchset")
	if !f.NoTotal {
		b.total(len(found.hits))
	}
	b.link("self", found.self)
	if url := s.nextURL(r, f, found, p); url != "" {
		b.link("next", url)
	}
	for _, h := range p.hits {
		id := h.entry.id
		if slices.Contains(f.Poison, found.typ+"/"+id) {
			return poisoned()
		}
		raw, err := s.served(f, found.typ, id, h.version)
		if err != nil {
			return broken(err)
		}
		b.entry(s.base(r)+"/"+found.typ+"/"+id, raw, "search", obj{{"mode", "match"}})
	}
	if f.RequiredSearch == modeEpic && !p.more {
		// DOMAIN §2: Epic always adds an OperationOutcome entry.
		note := outcome("information", "informational", "This response may not contain the entire record")
		if len(found.hits) == 0 {
			note = outcome("warning", "processing", "Resource request returns no results")
		}
		b.entry("", b.encode(note), "search", obj{{"mode", "outcome"}})
	}
	b.write(w)
	return nil
}

// nextURL is the link to the page behind p, "" when there is none.
func (s *Server) nextURL(r *http.Request, f Faults, found *results, p part) string {
	offset := p.next
	switch {
	case f.NextLoop:
		offset = 0 // the page at 0 links to itself
	case f.NextOtherHost != "" && !p.more:
		// Also a search of one page shows the knob.
	case !p.more:
		return ""
	}
	query := "?" + url.Values{pageParam: {s.pages.token(found, offset, s.now())}}.Encode()
	switch {
	case f.NextOtherHost != "":
		return strings.TrimRight(f.NextOtherHost, "/") + "/fhir" + query
	case f.RelativeNext:
		return "/fhir" + query
	default:
		return s.base(r) + query
	}
}

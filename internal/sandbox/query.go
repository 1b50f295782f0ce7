package sandbox

import (
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// query is a search as it was understood.
type query struct {
	typ       string
	tests     []func(*entry, version) bool // all must hold
	patient   string                       // "Patient/id" when the search names exactly one
	ids       []string
	sort      string // "", "_id", "_lastUpdated" or "-_lastUpdated"
	count     int
	countOnly bool
	honoured  url.Values // what the self link tells
}

const (
	defaultCount   = 50
	maxCount       = 1000
	maxCountOracle = 200 // DOMAIN §2: Cerner Observation, 50 by default and 200 at most
)

// parameters reads the parameters of a search by GET, or by POST with a form (R4 §3.1.1.1).
func parameters(w http.ResponseWriter, r *http.Request) (url.Values, *problem) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(http.StatusBadRequest, codeInvalid, "The query string cannot be read; check its percent encoding")
	}
	if r.Method != http.MethodPost {
		return values, nil
	}
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != "application/x-www-form-urlencoded" {
		return nil, fail(http.StatusUnsupportedMediaType, codeNotSupported, "_search takes application/x-www-form-urlencoded")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, fail(http.StatusBadRequest, codeInvalid, "The form cannot be read")
	}
	for name, list := range r.PostForm {
		values[name] = append(values[name], list...)
	}
	return values, nil
}

// parseQuery understands a search. An unknown parameter is ignored (R4 §3.1.1.3.1), or refused when strict.
func parseQuery(typ string, values url.Values, f Faults, strict bool, now time.Time) (*query, *problem) {
	q := &query{typ: typ, count: defaultCount, honoured: url.Values{}}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[name] {
			if value == "" {
				continue // R4 §3.1.1.3: a parameter without a value is ignored
			}
			known, p := q.add(name, value, f, now)
			if p != nil {
				return nil, p
			}
			if !known && strict {
				return nil, fail(http.StatusBadRequest, codeNotSupported,
					"A search parameter is not offered for this type; see metadata, or leave out Prefer: handling=strict")
			}
			if known {
				q.honoured.Add(name, value)
			}
		}
	}
	missing := demands(typ, f, func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return q.honoured.Has(n) || q.honoured.Has(n+":Patient") })
	})
	if missing != "" {
		return nil, fail(http.StatusBadRequest, codeRequired, missing)
	}
	if f.RequiredSearch == modeOracle {
		q.count = min(q.count, maxCountOracle)
	}
	return q, nil
}

// add takes in one parameter. It tells whether the parameter is offered.
func (q *query) add(name, value string, f Faults, now time.Time) (known bool, p *problem) {
	switch name {
	case "_count":
		return true, q.addCount(value)
	case "_sort":
		// Oracle Health has its own order (DOMAIN §2).
		if f.RequiredSearch == modeOracle || !slices.Contains([]string{"_id", "_lastUpdated", "-_lastUpdated"}, value) {
			return false, nil
		}
		q.sort = value
		return true, nil
	case "_summary":
		if value != "count" {
			return value == "false", nil
		}
		q.countOnly = true
		return true, nil
	case "_format":
		return true, nil // acceptable has looked at it
	}
	base, modifier, modified := strings.Cut(name, ":")
	if !slices.Contains(offered(q.typ, f), base) {
		return false, nil
	}
	if modified && (base != "patient" && base != "subject" || modifier != "Patient") {
		// R4 §3.1.1.4.4: a modifier that is not supported must be refused.
		return false, fail(http.StatusBadRequest, codeNotSupported, "A search parameter has a modifier that the server does not support")
	}
	if base == "_lastUpdated" {
		return true, q.addLastUpdated(value, f, now)
	}
	q.addTokens(base, value, modified)
	return true, nil
}

func (q *query) addCount(value string) *problem {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return fail(http.StatusBadRequest, codeInvalid, "_count must be a whole number of 0 or more")
	}
	if n == 0 { // R4 §3.1.1.5.4: the same as _summary=count
		q.countOnly = true
		return nil
	}
	q.count = min(n, maxCount)
	return nil
}

func (q *query) addLastUpdated(value string, f Faults, now time.Time) *problem {
	var ranges []dateFilter
	for one := range strings.SplitSeq(value, ",") {
		filter, err := parseDateFilter(one)
		if err != nil {
			return fail(http.StatusBadRequest, codeInvalid, "_lastUpdated must be a prefix and a date, such as ge2024-03-01T00:00:00Z")
		}
		ranges = append(ranges, filter)
	}
	skew := f.skew()
	q.tests = append(q.tests, func(_ *entry, v version) bool {
		at := v.updatedAt().Add(skew)
		return slices.ContainsFunc(ranges, func(d dateFilter) bool { return d.matches(at, now.Add(skew)) })
	})
	return nil
}

func (q *query) addTokens(name, value string, ofPatient bool) {
	values := strings.Split(value, ",") // a comma means or (R4 §3.1.1.4.9)
	if name == "_id" {
		if q.ids == nil {
			q.ids = values
		}
		q.tests = append(q.tests, func(e *entry, _ version) bool { return slices.Contains(values, e.id) })
		return
	}
	var matches []func(token) bool
	for _, v := range values {
		switch name {
		case "patient", "subject":
			ref := v
			if name == "patient" || ofPatient {
				ref = "Patient/" + strings.TrimPrefix(v, "Patient/")
			}
			if strings.Contains(v, "://") {
				ref = localReference(v)
			}
			kind := bySubject
			if name == "patient" {
				kind = byPatient
			}
			if len(values) == 1 && kind == byPatient {
				q.patient = ref
			}
			// A bare id may be that of a subject of any type (R4 §3.1.1.4.11).
			bare := kind == bySubject && !strings.Contains(ref, "/")
			matches = append(matches, func(t token) bool {
				return t.kind == kind && (t.code == ref || bare && strings.HasSuffix(t.code, "/"+ref))
			})
		case "category":
			matches = append(matches, tokenMatch(byCategory, v))
		case "code":
			matches = append(matches, tokenMatch(byCode, v))
		case "identifier":
			matches = append(matches, tokenMatch(byIdentifier, v))
		}
	}
	q.tests = append(q.tests, func(e *entry, _ version) bool {
		return slices.ContainsFunc(matches, e.has)
	})
}

// tokenMatch reads a token value: code, system|code, |code (no system) or system| (R4 §3.1.1.4.10).
func tokenMatch(kind tokenKind, value string) func(token) bool {
	system, code, withSystem := strings.Cut(value, "|")
	if !withSystem {
		return func(t token) bool { return t.kind == kind && t.code == value }
	}
	return func(t token) bool {
		return t.kind == kind && t.system == system && (code == "" || t.code == code)
	}
}

func (q *query) matches(e *entry, v version) bool {
	for _, test := range q.tests {
		if !test(e, v) {
			return false
		}
	}
	return true
}

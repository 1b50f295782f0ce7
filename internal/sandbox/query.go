package sandbox

import (
	"maps"
	"math"
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
	given     url.Values                    // parameters that are offered, with a value
	tests     []func(*entry, *version) bool // all must hold
	patient   string                        // "Patient/id" when the search names exactly one
	named     token                         // an identifier that what is searched has, when the search names exactly one
	since     int64                         // nothing older is asked for, in nanoseconds since 1970; 0: no such bound
	sort      string                        // "", "_id", "_lastUpdated" or "-_lastUpdated"
	count     int
	countOnly bool
	idsOnly   bool
	offset    int
	offsetSet bool
	behind    *row       // where a cursor stands
	honoured  url.Values // what the self link tells
}

const (
	defaultCount = 50
	maxCount     = 1000
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
func parseQuery(v *vendor, typ string, values url.Values, f Faults, strict bool, now time.Time) (*query, *problem) {
	q := &query{typ: typ, given: url.Values{}, honoured: url.Values{}, sort: v.ownOrder}
	q.count, _ = v.sizes(typ)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[name] {
			if value == "" {
				continue // R4 §3.1.1.3: a parameter without a value is ignored
			}
			dropped := slices.Contains(f.DropParams, name)
			before := *q
			known, p := q.add(v, name, value, f, now)
			if p != nil {
				return nil, p
			}
			if !known && strict {
				return nil, fail(http.StatusBadRequest, codeNotSupported,
					"A search parameter is not offered for this type; see metadata, or leave out Prefer: handling=strict")
			}
			if known {
				q.given.Add(name, value)
			}
			if dropped {
				before.given = q.given
				*q = before // as if it had not been there, except for what the vendor demands
			}
			if known && (!dropped || f.DropSilently) {
				q.honoured.Add(name, value)
			}
		}
	}
	if v.demands != nil {
		if p := v.demands(q); p != nil {
			return nil, p
		}
	}
	return q, nil
}

// has tells whether the search names one of the parameters, with or without a modifier of type.
func (q *query) has(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return q.given.Has(n) || q.given.Has(n+":Patient") })
}

// add takes in one parameter. It tells whether the parameter is offered.
func (q *query) add(v *vendor, name, value string, f Faults, now time.Time) (known bool, p *problem) {
	switch name {
	case "_count":
		return true, q.addCount(v, value)
	case "_sort":
		if v.ownOrder != "" || !slices.Contains([]string{"_id", "_lastUpdated", "-_lastUpdated"}, value) {
			return false, nil
		}
		q.sort = value
		return true, nil
	case "_summary":
		if value != "count" {
			return value == "false", nil
		}
		q.countOnly = v.countOnly
		return v.countOnly, nil
	case "_elements":
		q.idsOnly = v.idsOnly && value == "id"
		return q.idsOnly, nil
	case "_offset", "_cursor":
		return v.paging == pagingOffset, q.addPlace(v, name, value)
	case "_format":
		return true, nil // acceptable has looked at it
	}
	if slices.Contains(v.passed, name) {
		return true, nil
	}
	base, modifier, modified := strings.Cut(name, ":")
	// DOMAIN §0.2: Epic spells it _lastupdated; names are compared without regard to case.
	if strings.EqualFold(base, "_lastUpdated") {
		base = "_lastUpdated"
	}
	if !slices.Contains(v.offered(q.typ), base) {
		return false, nil
	}
	if modified && (base != "patient" && base != "subject" || modifier != "Patient") {
		// R4 §3.1.1.4.4: a modifier that is not supported must be refused.
		return false, fail(http.StatusBadRequest, codeNotSupported, "A search parameter has a modifier that the server does not support")
	}
	switch {
	case base == "_lastUpdated":
		return true, q.addLastUpdated(value, f, now)
	case v.nearPatients && slices.Contains([]string{"family", "given", "birthdate", "gender"}, base):
		return true, nil // scored, not tested
	case paramType(base) == "date":
		return true, q.addDate(value, now)
	}
	q.addTokens(base, value, modified)
	return true, nil
}

func (q *query) addCount(v *vendor, value string) *problem {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return fail(http.StatusBadRequest, codeInvalid, "_count must be a whole number of 0 or more")
	}
	if n == 0 { // R4 §3.1.1.5.4: the same as _summary=count
		q.countOnly = v.countOnly
		return nil
	}
	_, most := v.sizes(q.typ)
	q.count = min(n, most)
	return nil
}

// addPlace reads where a page of a search by offset or cursor begins.
func (q *query) addPlace(v *vendor, name, value string) *problem {
	if v.paging != pagingOffset {
		return nil
	}
	if name == "_cursor" {
		at, err := parseRow(value)
		if err != nil {
			return fail(http.StatusBadRequest, codeInvalid, "The _cursor is none of this server's; repeat the search from its first page")
		}
		q.behind = &at
		return nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return fail(http.StatusBadRequest, codeInvalid, "_offset must be a whole number of 0 or more")
	}
	q.offset, q.offsetSet = n, true
	return nil
}

func dateFilters(value string) ([]dateFilter, *problem) {
	var ranges []dateFilter
	for one := range strings.SplitSeq(value, ",") {
		filter, err := parseDateFilter(one)
		if err != nil {
			return nil, fail(http.StatusBadRequest, codeInvalid, "A date parameter must be a prefix and a date, such as ge2024-03-01T00:00:00Z")
		}
		ranges = append(ranges, filter)
	}
	return ranges, nil
}

func (q *query) addLastUpdated(value string, f Faults, now time.Time) *problem {
	ranges, p := dateFilters(value)
	if p != nil {
		return p
	}
	skew := f.skew()
	if first := ranges[0]; len(ranges) == 1 && slices.Contains([]string{"ge", "gt", "sa", "eq"}, first.prefix) && first.low.Year() > 1700 && first.low.Year() < 2200 {
		q.since = max(q.since, first.low.Add(-skew).UnixNano())
	}
	q.tests = append(q.tests, func(_ *entry, v *version) bool {
		at := v.updatedAt().Add(skew)
		return slices.ContainsFunc(ranges, func(d dateFilter) bool { return d.matches(at, now.Add(skew)) })
	})
	return nil
}

// addDate takes in a parameter about the time that a resource is about.
func (q *query) addDate(value string, now time.Time) *problem {
	ranges, p := dateFilters(value)
	if p != nil {
		return p
	}
	for _, d := range ranges {
		if d.low.Year() <= 1700 || d.high.Year() >= 2200 {
			return fail(http.StatusBadRequest, codeInvalid, "A date parameter must lie between the years 1700 and 2200")
		}
	}
	q.tests = append(q.tests, func(_ *entry, v *version) bool {
		return slices.ContainsFunc(ranges, func(d dateFilter) bool { return d.overlaps(v.when, now) })
	})
	return nil
}

func (q *query) addTokens(name, value string, ofPatient bool) {
	values := splitValues(value) // a comma means or (R4 §3.1.1.4.9)
	if name == "_id" {
		q.tests = append(q.tests, func(e *entry, _ *version) bool { return slices.Contains(values, e.id) })
		return
	}
	var matches []func(token) bool
	for _, v := range values {
		switch name {
		case "patient", "subject":
			matches = append(matches, q.referenceMatch(name, v, ofPatient, len(values) == 1))
		case "category":
			matches = append(matches, tokenMatch(byCategory, v))
		case "code":
			matches = append(matches, tokenMatch(byCode, v))
		case "identifier":
			matches = append(matches, tokenMatch(byIdentifier, v))
			if system, code, ok := strings.Cut(v, "|"); ok && code != "" && len(values) == 1 {
				q.named = token{byIdentifier, system, code}
			}
		case "type":
			matches = append(matches, tokenMatch(byType, v))
		case "encounter":
			ref := "Encounter/" + strings.TrimPrefix(v, "Encounter/")
			if strings.Contains(v, "://") {
				ref = localReference(v)
			}
			matches = append(matches, func(t token) bool { return t.kind == byEncounter && t.code == ref })
		case "clinical-status":
			matches = append(matches, tokenMatch(byStatus, v))
		case "status", "intent", "gender":
			kind := codeKind(name)
			matches = append(matches, func(t token) bool { return t.kind == kind && t.code == codeOf(v) })
		case "family", "given": // R4 §3.1.1.4.8: a string matches from its beginning, whatever the case
			kind := map[string]tokenKind{"family": byFamily, "given": byGiven}[name]
			matches = append(matches, func(t token) bool { return t.kind == kind && strings.HasPrefix(t.code, strings.ToLower(v)) })
		}
	}
	q.tests = append(q.tests, func(_ *entry, v *version) bool {
		return slices.ContainsFunc(matches, v.has)
	})
}

// referenceMatch reads the value of patient or subject; only when it is the only one is the search one of that patient.
func (q *query) referenceMatch(name, value string, ofPatient, only bool) func(token) bool {
	ref := value
	if name == "patient" || ofPatient {
		ref = "Patient/" + strings.TrimPrefix(value, "Patient/")
	}
	if strings.Contains(value, "://") {
		ref = localReference(value)
	}
	kind := bySubject
	if name == "patient" {
		kind = byPatient
	}
	if only && strings.HasPrefix(ref, "Patient/") {
		q.patient = ref
	}
	// A bare id may be that of a subject of any type (R4 §3.1.1.4.11).
	bare := kind == bySubject && !strings.Contains(ref, "/")
	return func(t token) bool {
		return t.kind == kind && (t.code == ref || bare && strings.HasSuffix(t.code, "/"+ref))
	}
}

// splitValues cuts a value at its commas; one behind a backslash is part of a value (R4 §3.1.1.4.0.1).
func splitValues(value string) []string {
	var out []string
	var one strings.Builder
	escaped := false
	for _, c := range value {
		switch {
		case c == '\\' && !escaped:
			escaped = true
			continue
		case c == ',' && !escaped:
			out = append(out, one.String())
			one.Reset()
		default:
			one.WriteRune(c)
		}
		escaped = false
	}
	return append(out, one.String())
}

// codeOf is the code of a token value, without its system.
func codeOf(value string) string { return value[strings.LastIndexByte(value, '|')+1:] }

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

// search is what the store looks for.
func (q *query) search() search {
	s := search{typ: q.typ, patient: q.patient, identifier: q.named, since: q.since}
	if len(q.tests) > 0 {
		s.match = func(e *entry, v *version) bool {
			for _, test := range q.tests {
				if !test(e, v) {
					return false
				}
			}
			return true
		}
	}
	return s
}

// String is the value of _cursor that stands for the row.
func (r row) String() string {
	return strconv.FormatInt(r.updated, 36) + "." + strconv.Itoa(r.place)
}

func parseRow(text string) (row, error) {
	updated, place, _ := strings.Cut(text, ".")
	at, err := strconv.ParseInt(updated, 36, 64)
	if err != nil {
		return row{}, errCursor
	}
	n, err := strconv.Atoi(place)
	if err != nil || n < 0 || n > math.MaxInt32 {
		return row{}, errCursor
	}
	return row{at, n}, nil
}

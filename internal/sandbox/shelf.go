package sandbox

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// shelf holds the resources of one type in the order in which they came.
type shelf struct {
	entries   []*entry
	byID      map[string]*entry
	byPatient map[string][]*entry // "Patient/id" to the entries that name it, now or formerly
	// byIdentifier has the entries that have an identifier, now or formerly; nil where clients don't write the type.
	byIdentifier map[token][]*entry
	// byTime has a hit for every version that was the newest once, in the order of lastUpdated. Those that are outdated
	// by now are passed over.
	byTime []hit
	live   int
	based  bool // some were not made by clients
}

// hit is a resource as a search found it.
type hit struct {
	entry   *entry
	version *version
}

func compareTime(a, b hit) int {
	return cmp.Or(cmp.Compare(a.version.updated, b.version.updated), cmp.Compare(a.entry.place, b.entry.place))
}

func comparePlace(a, b hit) int { return cmp.Compare(a.entry.place, b.entry.place) }

// note adds a hit to the order of time. Almost always it is the latest.
func (sh *shelf) note(h hit, sorted bool) {
	if n := len(sh.byTime); !sorted || n == 0 || compareTime(sh.byTime[n-1], h) <= 0 {
		sh.byTime = append(sh.byTime, h)
		return
	}
	at, _ := slices.BinarySearchFunc(sh.byTime, h, compareTime)
	sh.byTime = slices.Insert(sh.byTime, at, h)
}

// since is the part of byTime from an instant on.
func (sh *shelf) since(updated int64) []hit {
	at, _ := slices.BinarySearchFunc(sh.byTime, updated, func(h hit, t int64) int { return cmp.Compare(h.version.updated, t) })
	return sh.byTime[at:]
}

// lateCommit is a write that is seen only from due on.
type lateCommit struct {
	typ, id string
	version version
	due     int64
}

func (s *store) delay(l lateCommit) {
	s.late = append(s.late, l)
	if due := s.due.Load(); due == 0 || l.due < due {
		s.due.Store(l.due)
	}
}

// settle lets the late writes be seen whose time has come.
func (s *store) settle() {
	due := s.due.Load()
	if due == 0 {
		return
	}
	now := s.now().UnixNano()
	if now < due {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commit(func(l lateCommit) bool { return l.due <= now })
}

// commit lets some of the late writes be seen.
func (s *store) commit(which func(lateCommit) bool) {
	if len(s.late) == 0 {
		return
	}
	due := int64(0)
	s.late = slices.DeleteFunc(s.late, func(l lateCommit) bool {
		if which(l) {
			s.keep(l.typ, l.id, l.version, false)
			return true
		}
		if due == 0 || l.due < due {
			due = l.due
		}
		return false
	})
	s.due.Store(due)
}

// search says which live resources are looked for.
type search struct {
	typ     string
	patient string // "Patient/id": only that patient's resources are looked at
	// identifier, when it is set, is one that all have that are looked for.
	identifier token
	since      int64 // only resources that were updated from then on are looked at; 0: all
	match      func(*entry, *version) bool
}

func (q search) fits(e *entry) *version {
	if v := e.live(); v != nil && (q.match == nil || q.match(e, v)) {
		return v
	}
	return nil
}

// find lists what a search finds, in the order in which it came.
func (s *store) find(q search) []hit {
	s.settle()
	s.mu.RLock()
	defer s.mu.RUnlock()
	sh, ok := s.shelves[q.typ]
	if !ok {
		return nil
	}
	candidates := sh.entries
	if q.identifier != (token{}) && sh.byIdentifier != nil {
		candidates = sh.byIdentifier[q.identifier]
	} else if q.patient != "" {
		candidates = sh.byPatient[q.patient]
	} else if recent := sh.since(q.since); q.since != 0 && len(recent) < len(candidates)/4 {
		var out []hit
		for _, h := range recent {
			if h.entry.newest() == h.version && q.fits(h.entry) != nil {
				out = append(out, h)
			}
		}
		slices.SortFunc(out, comparePlace)
		return out
	}
	var out []hit
	if q.match == nil {
		out = make([]hit, 0, len(candidates))
	}
	for _, e := range candidates {
		if v := q.fits(e); v != nil {
			out = append(out, hit{e, v})
		}
	}
	return out
}

// row is a place in the order of lastUpdated.
type row struct {
	updated int64
	place   int
}

// window lists n hits of a search as it stands now, in the order of by ("_lastUpdated", "-_lastUpdated" or "_id"),
// from the skipth on or, in the order of _lastUpdated, behind a row.
func (s *store) window(q search, by string, behind *row, skip, n int) []hit {
	if q.patient != "" || q.identifier != (token{}) || by != "_lastUpdated" {
		hits := s.find(q)
		order(hits, by)
		hits = slices.DeleteFunc(hits, func(h hit) bool { return behind != nil && !behind.before(h) })
		hits = hits[min(skip, len(hits)):]
		return hits[:min(n, len(hits))]
	}
	s.settle()
	s.mu.RLock()
	defer s.mu.RUnlock()
	sh, ok := s.shelves[q.typ]
	if !ok {
		return nil
	}
	from := int64(math.MinInt64)
	if q.since != 0 {
		from = q.since
	}
	if behind != nil {
		from = max(from, behind.updated)
	}
	var out []hit
	for _, h := range sh.since(from) {
		if behind != nil && !behind.before(h) || h.entry.newest() != h.version || q.fits(h.entry) == nil {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if out = append(out, h); len(out) == n {
			break
		}
	}
	return out
}

// before tells whether a hit comes behind the row.
func (r row) before(h hit) bool {
	return cmp.Or(cmp.Compare(r.updated, h.version.updated), cmp.Compare(r.place, h.entry.place)) < 0
}

// order sorts hits by "_id", "_lastUpdated" or "-_lastUpdated"; "" leaves them as they are.
func order(hits []hit, by string) {
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

// dateSpan is the time that a resource is about, [from, to) in nanoseconds since 1970; the zero value is none.
type dateSpan struct{ from, to int64 }

// spanOf reads a dateTime, an instant, a date or a Period.
func spanOf(value []byte) dateSpan {
	bounds := func(text string) (dateRange, bool) {
		r, err := parseDate(text)
		return r, err == nil && r.low.Year() > 1700 && r.high.Year() < 2200 // what nanoseconds can count
	}
	if text := textOf(value); text != "" {
		if r, ok := bounds(text); ok {
			return dateSpan{r.low.UnixNano(), r.high.UnixNano()}
		}
		return dateSpan{}
	}
	start, started := bounds(getText(value, "start"))
	end, ended := bounds(getText(value, "end"))
	if !started && !ended {
		return dateSpan{}
	}
	span := dateSpan{math.MinInt64, math.MaxInt64} // an open end reaches on (R4 §2.24.0.17)
	if started {
		span.from = start.low.UnixNano()
	}
	if ended {
		span.to = end.high.UnixNano()
	}
	return span
}

// overlaps tells whether a date filter lets a stretch of time through (R4 §3.1.1.4.6).
func (f dateFilter) overlaps(span dateSpan, now time.Time) bool {
	if span == (dateSpan{}) {
		return false
	}
	low, high := f.low.UnixNano(), f.high.UnixNano()
	within := low <= span.from && span.to <= high
	switch f.prefix {
	case "eq":
		return within
	case "ne":
		return !within
	case "gt":
		return span.to > high
	case "lt":
		return span.from < low
	case "ge":
		return span.to > high || within || span.from >= low
	case "le":
		return span.from < low || within || span.to <= high
	case "sa":
		return span.from >= high
	case "eb":
		return span.to <= low
	default: // ap
		slack := now.Sub(f.low).Abs().Nanoseconds() / 10
		return span.from < high+slack && span.to > low-slack
	}
}

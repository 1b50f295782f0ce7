package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

var (
	errCursor   = errors.New("not a cursor")
	errDate     = errors.New("not a FHIR date, dateTime or instant")
	errResource = errors.New("not a FHIR resource")
	errNotFound = errors.New("no such resource")
)

// typeName is the form of a resource type's name.
var typeName = regexp.MustCompile(`^[A-Z][A-Za-z]{1,63}$`)

// version is one state of a resource.
type version struct {
	place   place
	deleted bool
	written bool   // by a client, through the API
	updated int64  // meta.lastUpdated in nanoseconds since 1970
	id      string // meta.versionId
	when    dateSpan
	tokens  []unique.Handle[token] // handles, because few values serve many resources
}

func (v *version) updatedAt() time.Time { return time.Unix(0, v.updated).UTC() }

func (v *version) has(match func(token) bool) bool {
	return slices.ContainsFunc(v.tokens, func(h unique.Handle[token]) bool { return match(h.Value()) })
}

// tokenKind is the search parameter that a token answers.
type tokenKind byte

const (
	byPatient tokenKind = iota
	bySubject
	byCategory
	byCode
	byIdentifier
	byStatus
	byIntent
	byGender
	byFamily // names in lower case
	byGiven
	byEncounter
	byType
)

// token is a value that a search can ask for. References keep "Type/id" in code.
type token struct {
	kind         tokenKind
	system, code string
}

// entry is one resource with its versions, the newest last.
type entry struct {
	id       string
	place    int // in the order in which resources came
	versions []version
}

// newest is nil for a resource that was taken out of the base data.
func (e *entry) newest() *version {
	if len(e.versions) == 0 {
		return nil
	}
	return &e.versions[len(e.versions)-1]
}

// created tells whether a client made the resource, through the API.
func (e *entry) created() bool { return len(e.versions) > 0 && e.versions[0].written }

// live is the newest version, nil when it is deleted.
func (e *entry) live() *version {
	if v := e.newest(); v != nil && !v.deleted {
		return v
	}
	return nil
}

// store is the EHR's memory. It is safe for concurrent use.
type store struct {
	// longIDs and hidesVersions are the vendor's: what is kept is what is served.
	longIDs, hidesVersions bool
	now                    func() time.Time

	mu      sync.RWMutex
	vault   *vault
	shelves map[string]*shelf
	sorted  bool         // the shelves' order of time is kept from now on
	last    int64        // the newest lastUpdated given by a write, so that the next one is later
	count   int          // how many resources were loaded: the ordinal of the next one
	late    []lateCommit // writes that nobody sees yet
	held    []heldWrite  // writes that wait for sign-off
	due     atomic.Int64 // when the first of them is seen; 0 when there is none
}

func newStore() (*store, error) {
	v, err := newVault()
	if err != nil {
		return nil, err
	}
	return &store{vault: v, shelves: map[string]*shelf{}, now: time.Now}, nil
}

// Change is one thing that was done to the sandbox's data.
type Change struct {
	Verb    string `json:"verb"` // created, changed, invalidated or deleted
	Type    string `json:"type"`
	ID      string `json:"id"`
	Version string `json:"version"`
}

// header is what the sandbox must know of any resource.
type header struct {
	typ, id string
	version string    // meta.versionId, "" when absent
	updated time.Time // meta.lastUpdated, zero when absent or not an instant
}

// readHeader reads the type, id and meta of a JSON object. It fails for what cannot be served under an id at all.
func readHeader(raw []byte) (header, error) {
	var h header
	for _, m := range members(raw) {
		value := raw[m.value.start:m.value.end]
		switch m.key {
		case "resourceType":
			h.typ = textOf(value)
		case "id":
			h.id = textOf(value)
			if h.id == "" || strings.ContainsAny(h.id, "/?# ") {
				return h, fmt.Errorf("%w: its id is not a FHIR id", errResource)
			}
		case "meta":
			h.version = getText(value, "versionId")
			if t, err := time.Parse(time.RFC3339Nano, getText(value, "lastUpdated")); err == nil {
				h.updated = t
			}
		}
	}
	if h.typ == "" {
		return h, fmt.Errorf("%w: the JSON object has no resourceType", errResource)
	}
	if !typeName.MatchString(h.typ) {
		return h, fmt.Errorf("%w: its resourceType is not the name of a type", errResource)
	}
	return h, nil
}

// withMeta gives the resource with meta.versionId and meta.lastUpdated as given; the rest of meta stays.
func withMeta(raw []byte, versionID, lastUpdated string) []byte {
	meta := []byte(get(raw, "meta"))
	if len(meta) == 0 || meta[0] != '{' {
		meta = []byte(`{}`)
	}
	meta = set(meta, "versionId", quote(versionID))
	meta = set(meta, "lastUpdated", quote(lastUpdated), "versionId")
	return set(raw, "meta", meta, "id", "resourceType")
}

// withoutVersion gives the resource without meta.versionId and meta.lastUpdated, and without a meta that held no more.
func withoutVersion(raw []byte) []byte {
	old := get(raw, "meta")
	meta := drop(drop(old, "versionId"), "lastUpdated")
	switch {
	case len(meta) == len(old):
		return raw
	case len(members(meta)) == 0:
		return drop(raw, "meta")
	default:
		return set(raw, "meta", meta)
	}
}

// load adds a resource of the base data with an id. Where meta.versionId or meta.lastUpdated is missing it gives one
// that depends on nothing but the order of loading: base plus step for each resource so far. It tells whether a
// resource of the same type and id was there before.
func (s *store) load(raw []byte, base time.Time, step time.Duration) (replaced bool, err error) {
	if s.longIDs {
		raw = lengthen(raw)
	}
	return s.loadServed(raw, base, step)
}

// loadServed is load for a resource that has the ids already under which it is served.
func (s *store) loadServed(raw []byte, base time.Time, step time.Duration) (replaced bool, err error) {
	h, err := readHeader(raw)
	if err != nil {
		return false, err
	}
	assigned := base.Add(time.Duration(s.count) * step)
	s.count++
	lastUpdated := getText(get(raw, "meta"), "lastUpdated")
	if h.updated.IsZero() {
		h.updated = assigned
	}
	if h.version == "" || lastUpdated == "" {
		h.version = cmp.Or(h.version, "1")
		if !s.hidesVersions {
			raw = withMeta(raw, h.version, cmp.Or(lastUpdated, formatInstant(assigned)))
		}
	}
	v, err := s.prepare(h, raw)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keep(h.typ, h.id, v, true), nil
}

// prepare makes the version of a resource whose meta is final.
func (s *store) prepare(h header, raw []byte) (version, error) {
	tokens, when := indexOf(h.typ, raw)
	if s.hidesVersions {
		raw = withoutVersion(raw)
	}
	p, err := s.vault.put(raw)
	return version{place: p, updated: h.updated.UnixNano(), id: h.version, tokens: tokens, when: when}, err
}

// keep makes a version the newest one of its resource. With replace the earlier ones are forgotten.
func (s *store) keep(typ, id string, v version, replace bool) (existed bool) {
	sh := s.shelf(typ)
	e, existed := sh.byID[id]
	if !existed {
		e = &entry{id: id, place: len(sh.entries)}
		sh.entries = append(sh.entries, e)
		sh.byID[id] = e
	}
	if e.live() == nil {
		sh.live++
	}
	if replace {
		e.versions = nil
	}
	e.versions = append(slices.Clip(e.versions), v)
	sh.based = sh.based || !e.created()
	sh.note(hit{e, e.newest()}, s.sorted)
	for _, t := range v.tokens {
		switch name := t.Value(); {
		case name.kind == byPatient:
			sh.byPatient[name.code] = withEntry(sh.byPatient[name.code], e, existed)
		case name.kind == byIdentifier && sh.byIdentifier != nil:
			sh.byIdentifier[name] = withEntry(sh.byIdentifier[name], e, existed)
		}
	}
	s.last = max(s.last, v.updated)
	return existed
}

// withEntry adds an entry to a list that may have it where it existed before.
func withEntry(list []*entry, e *entry, existed bool) []*entry {
	if existed && slices.Contains(list, e) {
		return list
	}
	return append(list, e)
}

// loaded ends the loading of the base data.
func (s *store) loaded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sh := range s.shelves {
		slices.SortFunc(sh.byTime, compareTime)
	}
	s.sorted = true
}

// revise rewrites a resource of the base data as it is, without a new version.
func (s *store) revise(typ, id string, edit func([]byte) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.shelf(typ).byID[id]
	if !ok {
		return nil
	}
	old := e.newest()
	raw, err := s.vault.get(old.place)
	if err != nil {
		return err
	}
	v, err := s.prepare(header{typ: typ, id: id, version: old.id, updated: old.updatedAt()}, edit(raw))
	if err != nil {
		return err
	}
	s.keep(typ, id, v, true)
	return nil
}

func (s *store) shelf(typ string) *shelf {
	sh, ok := s.shelves[typ]
	if !ok {
		sh = &shelf{byID: map[string]*entry{}, byPatient: map[string][]*entry{}}
		if slices.Contains(writableTypes(), typ) {
			sh.byIdentifier = map[token][]*entry{}
		}
		s.shelves[typ] = sh
	}
	return sh
}

// forget takes a resource out of the base data without a trace.
func (s *store) forget(typ, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh, ok := s.shelves[typ]
	if !ok {
		return false
	}
	e, ok := sh.byID[id]
	if !ok {
		return false
	}
	delete(sh.byID, id)
	e.versions = nil
	is := func(other *entry) bool { return other == e }
	sh.entries = slices.DeleteFunc(sh.entries, is)
	sh.byTime = slices.DeleteFunc(sh.byTime, func(h hit) bool { return h.entry == e })
	for k, list := range sh.byPatient {
		sh.byPatient[k] = slices.DeleteFunc(list, is)
	}
	for k, list := range sh.byIdentifier {
		sh.byIdentifier[k] = slices.DeleteFunc(list, is)
	}
	sh.live--
	return true
}

// versionsOf gives all versions of a resource, the newest last; nil when it never was there.
func (s *store) versionsOf(typ, id string) []version {
	s.settle()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sh, ok := s.shelves[typ]; ok {
		if e, ok := sh.byID[id]; ok {
			return slices.Clip(e.versions)
		}
	}
	return nil
}

// counts gives how many live resources of each type there are; types without any are left out.
func (s *store) counts() map[string]int {
	s.settle()
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[string]int, len(s.shelves))
	for typ, sh := range s.shelves {
		if sh.live > 0 {
			out[typ] = sh.live
		}
	}
	return out
}

// types lists the types that were ever there, sorted.
func (s *store) types() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.shelves))
}

// holds tells whether a type was ever there.
func (s *store) holds(typ string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.shelves[typ]
	return ok
}

// each walks the live resources of a type in the order in which they came, until fn says false.
func (s *store) each(typ string, fn func(id string, raw json.RawMessage) bool) error {
	for _, h := range s.find(search{typ: typ}) {
		raw, err := s.vault.get(h.version.place)
		if err != nil {
			return err
		}
		if !fn(h.entry.id, raw) {
			break
		}
	}
	return nil
}

// first is the id of the first live resource of a type, "" when there is none.
func (s *store) first(typ string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sh, ok := s.shelves[typ]; ok {
		for _, e := range sh.entries {
			if e.live() != nil {
				return e.id
			}
		}
	}
	return ""
}

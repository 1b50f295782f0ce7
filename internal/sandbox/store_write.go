package sandbox

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// write stores the next version of a resource: version + 1, and a lastUpdated later than any other (R4 §3.1.0.2, update).
// What is written late is seen only after so long, all with the lastUpdated of now.
func (s *store) write(raw []byte, how writeMode) (stored, error) {
	h, err := readHeader(raw)
	if err != nil {
		return stored{}, err
	}
	if h.id == "" {
		h.id = "sandbox-" + randomText()
		raw = set(raw, "id", quote(h.id), "resourceType")
	}
	s.settle()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commit(func(l lateCommit) bool { return l.typ == h.typ && l.id == h.id }) // versions follow each other
	c := Change{Verb: "created", Type: h.typ, ID: h.id, Version: "1"}
	if e, ok := s.shelf(h.typ).byID[h.id]; ok {
		c.Verb, c.Version = "changed", e.nextVersion()
	}
	now := s.now()
	h.version, h.updated = c.Version, s.nextInstant(now)
	raw = withMeta(raw, h.version, formatInstant(h.updated))
	v, err := s.prepare(h, raw)
	if err != nil {
		return stored{}, err
	}
	v.written = how.written
	switch wait := how.late(h.typ, h.id); {
	case how.held:
		s.last = max(s.last, v.updated)
		s.held = append(s.held, heldWrite{h.typ, h.id, v})
	case wait > 0:
		s.last = max(s.last, v.updated)
		s.delay(lateCommit{h.typ, h.id, v, now.Add(wait).UnixNano()})
	default:
		s.keep(h.typ, h.id, v, false)
	}
	return stored{c, v, raw}, nil
}

// writeMode says how a resource is written.
type writeMode struct {
	late    func(typ, id string) time.Duration // how long it stays unseen
	written bool                               // by a client
	held    bool                               // until it is filed
}

// stored is what a write has left: raw is the resource with its final meta.
type stored struct {
	Change

	version version
	raw     []byte
}

// nextVersion counts on from a version id that is a number; an opaque one is followed by its ordinal.
func (e *entry) nextVersion() string {
	n, err := strconv.Atoi(e.newest().id)
	if err != nil {
		n = len(e.versions)
	}
	return strconv.Itoa(n + 1)
}

// nextInstant is now in whole milliseconds, or a millisecond after the last write when that is not before now.
func (s *store) nextInstant(now time.Time) time.Time {
	t := now.UTC().Truncate(time.Millisecond)
	if last := time.Unix(0, s.last).UTC(); !t.After(last) {
		t = last.Truncate(time.Millisecond).Add(time.Millisecond)
	}
	return t
}

// remove deletes a resource; its history stays.
func (s *store) remove(typ, id string, now time.Time) (Change, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commit(func(l lateCommit) bool { return l.typ == typ && l.id == id })
	sh, ok := s.shelves[typ]
	if !ok {
		return Change{}, time.Time{}, fmt.Errorf("deleting a %s: %w", typ, errNotFound)
	}
	e, ok := sh.byID[id]
	if !ok || e.live() == nil {
		return Change{}, time.Time{}, fmt.Errorf("deleting a %s: %w", typ, errNotFound)
	}
	at := s.nextInstant(now)
	c := Change{Verb: "deleted", Type: typ, ID: id, Version: e.nextVersion()}
	e.versions = append(slices.Clip(e.versions), version{updated: at.UnixNano(), id: c.Version, deleted: true})
	sh.live--
	s.last = at.UnixNano()
	return c, at, nil
}

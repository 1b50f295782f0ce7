package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// heldWrite is a write that waits for sign-off: neither reads nor searches see it.
type heldWrite struct {
	typ, id string
	version version
}

// isHeld tells whether a write of the resource waits for sign-off.
func (s *store) isHeld(typ, id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.ContainsFunc(s.held, func(h heldWrite) bool { return h.typ == typ && h.id == id })
}

// based tells whether the EHR has resources of a type that no client has written.
func (s *store) based(typ string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sh, ok := s.shelves[typ]
	return ok && sh.based
}

// everyMatch lists what a search finds, and what it would find if held and late writes were seen.
func (s *store) everyMatch(q search) []heldWrite {
	var out []heldWrite
	for _, h := range s.find(q) {
		out = append(out, heldWrite{q.typ, h.entry.id, *h.version})
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	unseen := slices.Clone(s.held)
	for _, l := range s.late {
		unseen = append(unseen, heldWrite{l.typ, l.id, l.version})
	}
	for _, h := range unseen {
		known := slices.ContainsFunc(out, func(other heldWrite) bool { return other.id == h.id })
		if h.typ == q.typ && !known && (q.match == nil || q.match(&entry{id: h.id}, &h.version)) {
			out = append(out, h)
		}
	}
	return out
}

// fileAt lets a held write ("Type/id") be seen, with at as its meta.lastUpdated. One that isn't held stays as it is.
func (s *store) fileAt(target string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.held, func(h heldWrite) bool { return h.typ+"/"+h.id == target })
	if i < 0 {
		return nil
	}
	h := s.held[i]
	raw, err := s.vault.get(h.version.place)
	if err != nil {
		return err
	}
	raw = withMeta(raw, h.version.id, formatInstant(at))
	v, err := s.prepare(header{typ: h.typ, id: h.id, version: h.version.id, updated: at}, raw)
	if err != nil {
		return err
	}
	v.written = true
	s.keep(h.typ, h.id, v, false)
	s.held = slices.Delete(s.held, i, i+1)
	return nil
}

// FileHeld lets all that waits for sign-off be seen, as if it had been signed now. It gives how many there were, and
// fails when that cannot be kept.
func (s *Server) FileHeld() (int, error) {
	s.writes.Lock()
	defer s.writes.Unlock()
	s.store.mu.RLock()
	held := slices.Clone(s.store.held)
	s.store.mu.RUnlock()
	for i, h := range held {
		s.store.mu.RLock()
		at := s.store.nextInstant(s.now())
		s.store.mu.RUnlock()
		target := h.typ + "/" + h.id
		if err := errors.Join(s.store.fileAt(target, at), s.log.append(logLine{File: target, At: formatInstant(at)})); err != nil {
			return i, fmt.Errorf("filing what is held: %w", err)
		}
	}
	return len(held), nil
}

// Written gives the resources of a type that clients have made and the EHR still has, in the order in which they came,
// those that wait for sign-off last: as they are stored, which may be less than was sent. It is nil where they cannot be
// read.
func (s *Server) Written(typ string) []json.RawMessage {
	out, err := s.written(typ)
	if err != nil {
		return nil
	}
	return out
}

func (s *Server) written(typ string) ([]json.RawMessage, error) {
	found := s.store.find(search{typ: typ, match: func(e *entry, _ *version) bool { return e.created() }})
	s.store.mu.RLock()
	held := slices.Clone(s.store.held)
	s.store.mu.RUnlock()
	var versions []version
	for _, h := range found {
		// A change that waits is told in the place of what it changes.
		if !slices.ContainsFunc(held, func(other heldWrite) bool { return other.typ == typ && other.id == h.entry.id }) {
			versions = append(versions, *h.version)
		}
	}
	for _, h := range held {
		if h.typ == typ {
			versions = append(versions, h.version)
		}
	}
	out := make([]json.RawMessage, 0, len(versions))
	for _, v := range versions {
		raw, err := s.store.vault.get(v.place)
		if err != nil {
			return nil, fmt.Errorf("reading what was written: %w", err)
		}
		out = append(out, raw)
	}
	return out, nil
}

// controlWritten tells what clients have made, of the type in the query or of each that they may write.
func (s *Server) controlWritten(w http.ResponseWriter, r *http.Request) {
	types := writableTypes()
	if typ := r.URL.Query().Get("type"); typ != "" {
		types = strings.Split(typ, ",")
	}
	out := map[string][]json.RawMessage{}
	for _, typ := range types {
		written, err := s.written(typ)
		if err != nil {
			controlError(w, http.StatusInternalServerError, err.Error())
			return
		}
		out[typ] = written
	}
	writeJSON(w, plainJSON, http.StatusOK, map[string]any{"written": out})
}

func (s *Server) controlFile(w http.ResponseWriter, _ *http.Request) {
	n, err := s.FileHeld()
	if err != nil {
		controlError(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, plainJSON, http.StatusOK, map[string]int{"filed": n})
}

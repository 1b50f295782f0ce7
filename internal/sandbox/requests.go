package sandbox

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request is one entry of the log of requests.
type Request struct {
	At     time.Time `json:"at"` // when it came, by the sandbox's clock
	Method string    `json:"method"`
	Path   string    `json:"path"`
	// Query is the query string, and of a search by POST also its form.
	Query string `json:"query,omitempty"`
	// Kind is token, metadata, smart-configuration, read, history, search, page (a next link at the base's root), match,
	// create, update or other.
	Kind string `json:"kind"`
	// Type is the resource type that it is about, "" when it is about none that is known.
	Type   string `json:"type,omitempty"`
	Status int    `json:"status"` // 0: none was given
	// Authorization tells whether the request carried that header; never its value.
	Authorization bool   `json:"authorization"`
	RequestID     string `json:"request_id"`
}

// Traffic counts the requests of one minute that were of the same kind and type and got the same status.
type Traffic struct {
	Minute   time.Time `json:"minute"` // when it began, by the sandbox's clock
	Kind     string    `json:"kind"`   // as Request.Kind
	Type     string    `json:"type,omitempty"`
	Status   int       `json:"status"`
	Requests int       `json:"requests"`
}

const (
	// maxRequests is how many requests the log remembers.
	maxRequests = 20_000
	// maxMinutes is how many minutes of traffic are remembered.
	maxMinutes = 24 * 60

	kindRead    = "read"
	kindHistory = "history"
	kindSearch  = "search"
	kindPage    = "page"
	kindMatch   = "match"
	kindCreate  = "create"
	kindUpdate  = "update"
	kindOther   = "other"
)

// requestLog remembers the last requests, and counts all.
type requestLog struct {
	mu      sync.Mutex
	last    []Request
	traffic map[Traffic]int // Traffic.Requests is 0 in the keys
	newest  time.Time       // minute
}

func (l *requestLog) add(r Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == maxRequests {
		l.last = slices.Delete(l.last, 0, maxRequests/10)
	}
	l.last = append(l.last, r)
	minute := r.At.UTC().Truncate(time.Minute)
	if l.traffic == nil {
		l.traffic = map[Traffic]int{}
	}
	if minute.After(l.newest) {
		l.newest = minute
		for t := range l.traffic {
			if minute.Sub(t.Minute) > maxMinutes*time.Minute {
				delete(l.traffic, t)
			}
		}
	}
	l.traffic[Traffic{Minute: minute, Kind: r.Kind, Type: r.Type, Status: r.Status}]++
}

func (l *requestLog) all() []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.last)
}

func (l *requestLog) counted() []Traffic {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Traffic, 0, len(l.traffic))
	for t, n := range l.traffic {
		t.Requests = n
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Traffic) int {
		return cmp.Or(a.Minute.Compare(b.Minute), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Type, b.Type), cmp.Compare(a.Status, b.Status))
	})
	return out
}

// Requests gives the last requests to the EHR, up to 20,000 of them, the oldest first.
func (s *Server) Requests() []Request { return s.requests.all() }

// Traffic counts all requests to the EHR of the last day, the earliest minute first.
func (s *Server) Traffic() []Traffic { return s.requests.counted() }

// kindOf tells what a request is and which resource type it is about.
func (s *Server) kindOf(r *http.Request) (kind, typ string) {
	if r.URL.Path == "/oauth/token" {
		return kindToken, ""
	}
	place, ok := strings.CutPrefix(r.URL.Path, "/fhir")
	if !ok {
		return kindOther, ""
	}
	parts := strings.Split(strings.Trim(place, "/"), "/")
	known := func(typ string) string {
		if s.serves(typ) {
			return typ
		}
		return ""
	}
	switch {
	case r.Method == http.MethodPost && len(parts) == 1:
		return kindCreate, known(parts[0])
	case r.Method == http.MethodPut || r.Method == http.MethodPatch:
		return kindUpdate, known(parts[0])
	case parts[0] == "":
		return kindPage, s.pages.typeOf(askedPage(r.URL.Query()))
	case parts[0] == "metadata":
		return kindMetadata, ""
	case parts[0] == ".well-known":
		return kindSMART, ""
	case len(parts) == 1, len(parts) == 2 && parts[1] == "_search":
		return kindSearch, known(parts[0])
	case len(parts) == 2 && parts[1] == "$match":
		return kindMatch, known(parts[0])
	case len(parts) == 2:
		return kindRead, known(parts[0])
	case len(parts) > 2 && parts[2] == "_history":
		return kindHistory, known(parts[0])
	default:
		return kindOther, known(parts[0])
	}
}

package sandbox

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Arrival is a request that wants something written: it reached the EHR, whatever became of it.
type Arrival struct {
	// At is when the head of the request was read, by the sandbox's own clock: Faults.ClockSkewSeconds doesn't shift it.
	At time.Time `json:"at"`
	// Done is when it was answered or given up; zero while it is under way.
	Done   time.Time `json:"done,omitzero"`
	Method string    `json:"method"`
	// Type is the resource type of the address, "" when it names none that is served.
	Type string `json:"type,omitempty"`
	// Patient is the id of the subject that the body names, Identifier the value of its first identifier.
	Patient    string `json:"patient,omitempty"`
	Identifier string `json:"identifier,omitempty"`
	// ID is the resource that was made, changed, or found by If-None-Exist.
	ID string `json:"id,omitempty"`
	// Status is that of the answer; 0: none was given.
	Status int `json:"status"`
	// Processed tells whether the EHR did what was asked: it has the resource ID, whatever the client was told.
	Processed bool `json:"processed"`
	// Bytes is how much of the body came.
	Bytes int `json:"bytes"`
	// Worker is who sent it: its User-Agent and its address.
	Worker string `json:"worker"`
}

// maxArrivals is how many arrivals the log remembers.
const maxArrivals = 200_000

// arrivalLog remembers the last arrivals, the oldest first.
type arrivalLog struct {
	mu       sync.Mutex
	last     []*Arrival
	attempts map[string]int // arrivals by what they write
}

// arriving is an arrival while it is under way.
type arriving struct {
	entry   *Arrival // guarded by the log
	patient string
	// key is what it writes, and attempt the how manieth arrival of it this is, from 1 on.
	key     string
	attempt int
	body    []byte
	err     error // of reading the body
}

// arrivingKey is under what a request carries its arriving.
type arrivingKey struct{}

func arrivingOf(r *http.Request) *arriving {
	a, ok := r.Context().Value(arrivingKey{}).(*arriving)
	if !ok {
		return &arriving{entry: &Arrival{}, err: io.ErrUnexpectedEOF} // no route to a write leads past observed
	}
	return a
}

// arrive logs a write whose head came at at, and reads its body. end completes the entry.
func (s *Server) arrive(w http.ResponseWriter, r *http.Request, at time.Time, typ string) (_ *http.Request, end func(status int)) {
	a := &arriving{entry: &Arrival{At: at, Method: r.Method, Type: typ, Worker: strings.TrimSpace(r.UserAgent() + " " + r.RemoteAddr)}}
	s.arrivals.add(a.entry)
	a.body, a.err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxWrite))
	s.arrivals.read(a)
	return r.WithContext(context.WithValue(r.Context(), arrivingKey{}, a)), func(status int) {
		s.arrivals.mu.Lock()
		defer s.arrivals.mu.Unlock()
		a.entry.Status, a.entry.Done = status, s.now()
	}
}

func (l *arrivalLog) add(entry *Arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == maxArrivals {
		l.last = slices.Delete(l.last, 0, maxArrivals/10)
	}
	l.last = append(l.last, entry)
}

// read takes in the body.
func (l *arrivalLog) read(a *arriving) {
	identifier := ""
	if json := a.body; validObject(json) {
		subject := getText(get(json, subjectOf(getText(json, "resourceType"))), "reference")
		a.patient = strings.TrimPrefix(localReference(subject), "Patient/")
		for _, item := range oneOrMany(get(json, "identifier")) {
			if identifier = getText(item, "value"); identifier != "" {
				break
			}
		}
	}
	a.key = identifier
	if a.key == "" {
		a.key = strconv.FormatUint(uint64(hashOf(a.patient, string(a.body))), 36)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a.entry.Patient, a.entry.Identifier, a.entry.Bytes = a.patient, identifier, len(a.body)
	if l.attempts == nil || len(l.attempts) >= maxArrivals {
		l.attempts = map[string]int{}
	}
	l.attempts[a.key]++
	a.attempt = l.attempts[a.key]
}

func (l *arrivalLog) processed(a *arriving, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.entry.Processed, a.entry.ID = true, id
}

func (l *arrivalLog) all() []Arrival {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Arrival, 0, len(l.last))
	for _, entry := range l.last {
		out = append(out, *entry)
	}
	return out
}

// Arrivals gives the last creates and updates that reached the EHR, up to 200,000 of them, in the order in which they
// came: refused ones too, and those under way.
func (s *Server) Arrivals() []Arrival { return s.arrivals.all() }

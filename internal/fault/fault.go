// Package fault is the closed list of what can go wrong with a hospital's EHR, with its data or with us. A fault says
// what kind of thing happened, where, and what to do next; it never carries PHI, so its text may be logged, shown and
// kept in workflow histories.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind is one entry of the closed list. It crosses process boundaries as text: append, never rename.
type Kind string

// The kinds, by what has to be done about them.
const (
	// Unknown is an error that nobody classified; it is retried like Transient.
	Unknown Kind = "unknown"
	// Transient is a 5xx, a reset or a time-out: try again later.
	Transient Kind = "transient"
	// Throttled is a 429, or a 503 with Retry-After: wait as long as it says; uses up no attempts.
	Throttled Kind = "throttled"
	// Auth is refused credentials (401, invalid_client, invalid_grant): a person must fix them.
	Auth Kind = "auth"
	// Scope is a forbidden resource type (403): that type is switched off, the rest goes on.
	Scope Kind = "scope"
	// Network is DNS, dial or TLS trouble before any answer: the address, the firewall or a certificate.
	Network Kind = "network"
	// TLS is a certificate that doesn't verify, or a protocol below TLS 1.2.
	TLS Kind = "tls"
	// Protocol is an answer that isn't FHIR: HTML, XML, broken JSON, a next link to another host, an endless loop.
	Protocol Kind = "protocol"
	// Unsupported is a request that the server doesn't offer (404 on a search, 405, 501, not-supported).
	Unsupported Kind = "unsupported"
	// Data is one resource that can't be taken: invalid, unmappable or too large. It goes to quarantine.
	Data Kind = "data"
	// Config is a wrong setting on our side: a person must edit the connection.
	Config Kind = "config"
	// NotFound is a thing of ours that isn't there, or is another org's.
	NotFound Kind = "not-found"
	// Conflict is a thing that exists already, or that changed meanwhile.
	Conflict Kind = "conflict"
	// Busy is a lease that another run holds: try again when it is done.
	Busy Kind = "busy"
	// Expired is a page link that the server has forgotten: begin that query again from the watermark.
	Expired Kind = "expired"
	// Paused is work that an operator has paused: it goes on when somebody resumes it.
	Paused Kind = "paused"
	// Unavailable is our own database or Temporal not answering.
	Unavailable Kind = "unavailable"
	// Depth is a page link that the server refuses (400, 422) because it leads too deep: read by smaller windows.
	Depth Kind = "depth"
)

// Error is a fault: what was being done, what kind of thing went wrong, and what to do next.
type Error struct {
	Op   string // the operation in lower case, such as "searching Observation"
	Kind Kind
	// Detail is free of PHI: status codes, element paths, our own ids, counts.
	Detail string
	// Fix is one sentence that says what to do next; empty where nothing is to be done.
	Fix string
	// RetryAfter is what the server asked for; 0 where it said nothing.
	RetryAfter time.Duration
	// Attempts is how often it was tried before giving up; 0 where nobody gave up.
	Attempts int
	// cause is kept for errors.Is and errors.As only: its text may hold PHI and is never printed.
	cause error
}

// New makes a fault without a cause.
func New(op string, kind Kind, detail string) *Error {
	return &Error{Op: op, Kind: kind, Detail: detail}
}

// Newf is New with a format for the detail; give it nothing that could be PHI.
func Newf(op string, kind Kind, format string, args ...any) *Error {
	return New(op, kind, fmt.Sprintf(format, args...))
}

// Wrap makes a fault that keeps cause for errors.Is and errors.As, and prints none of its text.
func Wrap(op string, kind Kind, detail string, cause error) *Error {
	return &Error{Op: op, Kind: kind, Detail: detail, cause: cause}
}

// WithFix returns e with the sentence that says what to do next.
func (e *Error) WithFix(fix string) *Error {
	e.Fix = fix
	return e
}

// After returns e with the delay that the server asked for.
func (e *Error) After(d time.Duration) *Error {
	e.RetryAfter = d
	return e
}

// GivenUp returns e marked as final after so many attempts: it isn't retried any more.
func (e *Error) GivenUp(attempts int) *Error {
	e.Attempts = attempts
	return e
}

// Error prints operation, kind, detail and fix.
func (e *Error) Error() string {
	text := e.Op + ": " + string(e.Kind)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Fix != "" {
		text += ". " + e.Fix
	}
	return text
}

// Unwrap gives errors.Is and errors.As the cause.
func (e *Error) Unwrap() error { return e.cause }

// KindOf finds the kind of the outermost fault in err, Unknown where there is none, and "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	if f, ok := errors.AsType[*Error](err); ok {
		return f.Kind
	}
	return Unknown
}

// Is reports whether err is a fault of that kind.
func Is(err error, kind Kind) bool { return KindOf(err) == kind }

// Public is the text of err that may be shown: a fault's own, and for anything else a fixed sentence, because an
// unclassified error may carry PHI.
func Public(err error) string {
	if f, ok := errors.AsType[*Error](err); ok {
		return f.Error()
	}
	return "an unclassified error; the component's own log has its type"
}

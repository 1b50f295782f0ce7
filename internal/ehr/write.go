package ehr

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// Request is one write: the create of a resource, or the update of one that Cura has written before.
type Request struct {
	// Type is the FHIR type, such as DocumentReference.
	Type string
	// ID is the resource to update, as the EHR calls it (PHI); empty for a create.
	ID string
	// Body is the resource in JSON (PHI).
	Body []byte
	// IfNoneExist is the query of a conditional create, such as identifier=SYSTEM%7CVALUE; empty for none. Put no clinical
	// content into it.
	IfNoneExist string
	// IfMatch is the ETag that an update expects, such as W/"3"; empty for none.
	IfMatch string
	// Deadline has a monotonic reading, as time.Now gives it: no byte of the write leaves after it. The answer may come later,
	// for as long as the context lets it.
	Deadline time.Time
}

// Receipt is the EHR's word that it has taken a write.
type Receipt struct {
	Type string
	// ID is the resource's (PHI). Empty: the EHR has taken the write and gave no id that can be read.
	ID string
	// Version and ETag are the version that was written; empty where the EHR tells none.
	Version, ETag string
	// Existed says that a conditional create found the resource there, so that nothing was written.
	Existed bool
	// Status is the answer's: 201 and 200, and others of 2xx.
	Status int
	// At is when the answer came.
	At time.Time
}

// Sending is one write that is ready to go: it has a token and its turn.
type Sending struct {
	c     *Client
	grant grant
	// spent says that the turn was used or given back.
	spent atomic.Bool
}

// Prepare does what may take long before anything is promised: it gets a token and waits for the pace's turn. What it gives
// sends one request; Close gives an unused turn back. Errors are faults: those of a token, Throttled where the turn is too
// far off; MaybeProcessed is false of them.
func (c *Client) Prepare(ctx context.Context) (*Sending, error) {
	g, _, err := c.tokens.get(ctx, "")
	if err != nil {
		return nil, untouched(err)
	}
	if c.cfg.Pace != nil {
		if err := waitTurn(ctx, c.cfg.Pace); err != nil {
			return nil, untouched(asWriteFault(ctx, "waiting for the write's turn", err))
		}
	}
	return &Sending{c: c, grant: g}, nil
}

// Close gives the turn back where nothing was sent. It does nothing after Send, and nothing twice.
func (s *Sending) Close() {
	if !s.spent.Swap(true) {
		s.c.giveBack()
	}
}

// giveBack ends a turn that wasn't used.
func (c *Client) giveBack() {
	if c.cfg.Pace != nil {
		c.cfg.Pace.Done(Outcome{})
	}
}

// Send makes the write: one attempt on the wire, and one more only after a 401, with a new token and a turn of its own,
// before the same deadline. It never waits for a turn before the first attempt, follows no redirect, and ends soon after the
// deadline where nothing could be sent. It may be called once.
//
// Errors are faults, and MaybeProcessed tells which of them leave the outcome open. Data: the EHR refuses the resource (400,
// 422) or finds it too large; Conflict: 409, and 412 for If-None-Exist with several matches or a stale If-Match; NotFound:
// the resource to update isn't there; Scope, Auth, Unsupported, Config, Throttled and Transient as for reads. For a deadline
// that has passed the cause is [ErrPastDeadline].
func (s *Sending) Send(ctx context.Context, r Request) (Receipt, error) {
	op := r.op()
	if s.spent.Swap(true) {
		return Receipt{}, untouched(fault.New(op, fault.Config, "the turn was used already").WithFix("Prepare each write by itself"))
	}
	if err := r.check(); err != nil {
		s.c.giveBack()
		return Receipt{}, untouched(err)
	}
	receipt, err := s.c.attempt(ctx, r, s.grant)
	if !errors.Is(err, errUnauthorized) {
		return receipt, err
	}
	limited, cancel := context.WithDeadlineCause(ctx, r.Deadline, ErrPastDeadline)
	defer cancel()
	g, _, tokenErr := s.c.tokens.get(limited, s.grant.accessToken)
	if tokenErr != nil {
		return Receipt{}, untouched(tokenErr)
	}
	if s.c.cfg.Pace != nil {
		if err := waitTurn(limited, s.c.cfg.Pace); err != nil {
			return Receipt{}, untouched(asWriteFault(limited, op, err))
		}
	}
	return s.c.attempt(ctx, r, g)
}

func (r Request) op() string {
	what := "a resource"
	if typeName(r.Type) {
		what = "one " + r.Type
	}
	if r.ID != "" {
		return "updating " + what
	}
	return "writing " + what
}

func (r Request) check() error {
	const fix = "This is a fault of Cura's own: report it, with the version of the program"
	say := func(detail string) error { return fault.New(r.op(), fault.Config, detail).WithFix(fix) }
	switch {
	case !typeName(r.Type):
		return say("the resource type isn't spelled like one of FHIR's")
	case r.ID != "" && !fhir.IsID(r.ID):
		return say("the id of the resource isn't spelled as FHIR allows")
	case len(r.Body) == 0:
		return say("there is no resource to write")
	case !monotonic(r.Deadline):
		return say("the deadline has no monotonic reading, and a clock that is set would move it")
	case r.ID != "" && r.IfNoneExist != "" || r.ID == "" && r.IfMatch != "":
		return say("If-None-Exist is for a create, If-Match for an update")
	case !headerValue(r.IfNoneExist) || !headerValue(r.IfMatch):
		return say("If-None-Exist or If-Match has characters that can't stand in a header")
	default:
		return nil
	}
}

// monotonic reports whether t has a monotonic reading: Round(0) strips it (package time, "Monotonic Clocks"), and == compares
// it where Equal doesn't.
func monotonic(t time.Time) bool { return t != t.Round(0) }

func headerValue(text string) bool {
	for _, b := range []byte(text) {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}

// httpWrite makes the HTTP request. Its body can't be had again: net/http has nothing to send a second time.
func (c *Client) httpWrite(ctx context.Context, r Request, g grant) (*http.Request, error) {
	to := c.base.JoinPath(r.Type)
	if r.ID != "" {
		to = to.JoinPath(r.ID)
	}
	req, err := c.httpRequest(ctx, request{op: r.op(), typ: cura.ResourceType(r.Type), url: to, accept: fhirJSON, body: r.Body, contentType: fhirJSON})
	if err != nil {
		return nil, fault.Wrap(r.op(), fault.Config, "the address can't be used", err).WithFix(fixConnection)
	}
	if originOf(req.URL) != originOf(c.base) {
		return nil, fault.New(r.op(), fault.Config, "the address leaves the connection's origin").WithFix(fixConnection)
	}
	if r.ID != "" {
		req.Method = http.MethodPut
	}
	req.Body, req.GetBody = io.NopCloser(bytes.NewReader(r.Body)), nil
	req.Header.Set("Authorization", "Bearer "+g.accessToken)
	req.Header.Set("Prefer", "return=minimal")
	if r.IfNoneExist != "" {
		req.Header.Set("If-None-Exist", r.IfNoneExist)
	}
	if r.IfMatch != "" {
		req.Header.Set("If-Match", r.IfMatch)
	}
	return req, nil
}

// attempt sends the request once. The caller has the turn, which ends here.
func (c *Client) attempt(ctx context.Context, r Request, g grant) (Receipt, error) {
	sending, a, end := newAttempt(ctx, r.Deadline)
	defer end()
	req, err := c.httpWrite(sending, r, g)
	if err != nil {
		c.giveBack()
		return Receipt{}, untouched(err)
	}
	resp, err := c.writes.Do(req)
	if err != nil {
		return Receipt{}, brokenWrite(ctx, sending, r, a, err)
	}
	defer func() {
		drain(resp.Body)
		_ = resp.Body.Close() // everything wanted of it was read
	}()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return Receipt{}, c.writeFault(r, resp)
	}
	return c.receipt(r, resp)
}

// prepaid is a pace whose turn was waited for before the request was made.
type prepaid struct{ pace Pace }

// Wait implements Pace.
func (prepaid) Wait(context.Context) error { return nil }

// Done implements Pace.
func (p prepaid) Done(o Outcome) { p.pace.Done(o) }

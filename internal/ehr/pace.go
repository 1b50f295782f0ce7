package ehr

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/cura-health/ehr-sync/internal/fault"
)

// Pace decides when a request may go to the hospital, and learns how each one went. It stands around every HTTP request
// of a client: metadata, discovery, tokens, searches and reads, each that is sent again included. It is used concurrently.
type Pace interface {
	// Wait returns nil when the request may be sent; Done follows then, once. Where the wait is too long to be spent
	// inside a request, it returns a *fault.Error of kind fault.Throttled with RetryAfter, which comes out of the client's
	// methods unchanged; any other error stops the request too.
	Wait(ctx context.Context) error
	// Done ends a request that Wait let through: when its answer's body is closed, or when there is none.
	Done(o Outcome)
}

// Outcome is how one request went.
type Outcome struct {
	// Status is the answer's HTTP status; 0: no answer.
	Status int
	// RetryAfter is what the answer asked for, clamped to [1 s, 30 min]; 0 where it said nothing that can be used.
	RetryAfter time.Duration
	// Absurd says that Retry-After was there, and wasn't a plain sane value.
	Absurd bool
	// Err says that there was no answer, or not the whole of one, and that nobody had cancelled the request.
	Err bool
}

// paced asks the pace before each request.
type paced struct {
	next  http.RoundTripper
	pace  Pace
	clock func() time.Time
}

// RoundTrip implements [http.RoundTripper].
func (t *paced) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if err := waitTurn(ctx, t.pace); err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // as a RoundTripper must; nothing was sent of it
		}
		return nil, err
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		t.pace.Done(Outcome{Err: ctx.Err() == nil})
		return nil, err
	}
	asked := readRetryAfter(resp.Header, t.clock())
	resp.Body = &pacedBody{
		ReadCloser: resp.Body, ctx: ctx, pace: t.pace,
		outcome: Outcome{Status: resp.StatusCode, RetryAfter: asked.wait, Absurd: asked.absurd},
	}
	return resp, nil
}

// waitTurn asks the pace for one request's turn. Its own faults come out unchanged, and so does the end of ctx.
func waitTurn(ctx context.Context, pace Pace) error {
	err := pace.Wait(ctx)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok || ctx.Err() != nil {
		return err
	}
	return fault.Wrap("waiting for the request's turn", fault.Unavailable, "the budget of requests can't be asked", err).
		WithFix("Check that the database answers")
}

// pacedBody tells the pace when the answer is done with.
type pacedBody struct {
	io.ReadCloser
	ctx     context.Context //nolint:containedctx // the request's own: it tells a cancelled request from a broken one
	pace    Pace
	outcome Outcome
	closed  bool
}

// Read notes an error that ends the body.
func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() == nil {
		b.outcome.Err = true
	}
	return n, err
}

// Close ends the request.
func (b *pacedBody) Close() error {
	err := b.ReadCloser.Close()
	if !b.closed {
		b.closed = true
		b.pace.Done(b.outcome)
	}
	return err
}

package ehr

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

var errTooSlow = errors.New("the answer comes too slowly")

// slowBody gives a body the grace, and beyond it time by its size at minRate: a server that dribbles a byte a second
// can't hold a worker.
type slowBody struct {
	next    http.RoundTripper
	grace   time.Duration
	minRate int64
}

// RoundTrip implements [http.RoundTripper].
func (t *slowBody) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &timedBody{
		ReadCloser: resp.Body, ctx: ctx, cancel: cancel, grace: t.grace, minRate: t.minRate, start: time.Now(),
		timer: time.AfterFunc(t.grace, func() { cancel(errTooSlow) }),
	}
	return resp, nil
}

type timedBody struct {
	io.ReadCloser
	ctx     context.Context //nolint:containedctx // the request's own: its cause tells why a read failed
	cancel  context.CancelCauseFunc
	grace   time.Duration
	minRate int64
	start   time.Time
	got     int64
	timer   *time.Timer
}

// Read moves the deadline on by what has come.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.got += int64(n)
	if err != nil {
		b.timer.Stop()
		if errors.Is(context.Cause(b.ctx), errTooSlow) {
			err = errTooSlow
		}
		return n, err
	}
	bySize := time.Duration(float64(b.got) / float64(b.minRate) * float64(time.Second))
	b.timer.Reset(time.Until(b.start.Add(b.grace + bySize)))
	return n, nil
}

// Close frees the timer and the request.
func (b *timedBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

package activities

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// longestHold is the longest pause that is sat out inside the activity; a longer one is a durable timer of the workflow.
const longestHold = 30 * time.Second

// fetch gets one page, and checks that the server has searched for what it was asked for.
func (a *Activities) fetch(ctx context.Context, client *ehr.Client, query ehr.Query, attempts int) (page ehr.Page, wait time.Duration, err error) {
	wait, err = a.attempt(ctx, attempts, func() error {
		var err error
		began := time.Now()
		page, err = client.Search(ctx, query)
		a.metrics.Took(ctx, "search", time.Since(began))
		return err
	})
	if err != nil || wait > 0 {
		return ehr.Page{}, wait, err
	}
	return page, 0, honoured(query, page)
}

// honoured refuses a page of another search than was asked for: one that leaves the patient or the category out, or a
// window's end, brings what isn't wanted. A dropped lower bound brings more of the same, and costs only time.
func honoured(query ehr.Query, page ehr.Page) error {
	op := "searching " + string(query.Type)
	dropped := func(name string) bool {
		return slices.ContainsFunc(page.Dropped, func(d string) bool { return strings.EqualFold(d, name) })
	}
	switch {
	case dropped("patient") || dropped("subject") || dropped("_id"):
		return fault.New(op, fault.Protocol, "the server has ignored which patient was asked for; nothing of its answer is kept").
			WithFix("Ask the hospital about its server; until then take the type off the connection's types")
	case dropped("category") || !query.Until.IsZero() && dropped("_lastUpdated"):
		return fault.Newf(op, fault.Unsupported, "the server has ignored %d of the search parameters", len(page.Dropped)).
			WithFix("Choose another profile or strategy: starter profiles, starter connection edit --strategy TYPE=snapshot")
	case page.ServerTime.IsZero():
		return fault.New(op, fault.Protocol, "the server sends no Date header, so no watermark can be set").
			WithFix("Ask the hospital to let the Date header through its gateway")
	}
	return nil
}

// attempt does a request. What passes by itself is tried again, with backoff and jitter, up to so many times; a server
// that throttles is waited for without counting, here or, when it asks for long, by the workflow: then wait isn't 0.
func (a *Activities) attempt(ctx context.Context, attempts int, do func() error) (wait time.Duration, err error) {
	began := time.Now()
	for attempt, throttles := 1, 1; ; {
		err := do()
		if err == nil {
			return 0, nil
		}
		wait, counted := a.retry(err, attempt, attempts, throttles)
		if wait < 0 {
			return 0, err
		}
		throttles++
		if counted {
			attempt++
		} else if wait > longestHold || time.Since(began) > a.cfg.ChunkTime || stopping(ctx) {
			return wait, nil
		}
		if err := hold(ctx, wait); err != nil {
			return 0, err
		}
	}
}

// retry says how long to wait before trying again after err, and whether that uses up an attempt. A negative wait means
// not to try again.
func (a *Activities) retry(err error, attempt, attempts, throttles int) (wait time.Duration, counted bool) {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return -1, false
	}
	switch f.Kind {
	case fault.Throttled:
		if f.RetryAfter > 0 {
			return f.RetryAfter, false
		}
		return Backoff(throttles, a.cfg.RetryInitial, a.cfg.RetryMax), false
	case fault.Transient, fault.Network, fault.Unknown:
		if attempt >= attempts {
			_ = f.GivenUp(attempt)
			return -1, true
		}
		return max(Backoff(attempt, a.cfg.RetryInitial, a.cfg.RetryMax), f.RetryAfter), true
	case fault.Auth, fault.Scope, fault.TLS, fault.Protocol, fault.Unsupported, fault.Data, fault.Config, fault.NotFound,
		fault.Conflict, fault.Busy, fault.Expired, fault.Unavailable, fault.Depth, fault.Paused:
	}
	return -1, false
}

// hold waits, unless the activity is cancelled or the worker stops first.
func hold(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-activity.GetWorkerStopChannel(ctx):
		return fault.New("waiting for the EHR", fault.Unavailable, "the worker is stopping")
	case <-timer.C:
		return nil
	}
}

func stopping(ctx context.Context) bool {
	select {
	case <-activity.GetWorkerStopChannel(ctx):
		return true
	default:
		return false
	}
}

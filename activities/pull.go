package activities

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// PullInput says what to read: one resource type of a connection, for a run.
type PullInput struct {
	Target
	Run  string            `json:"run"`
	Type cura.ResourceType `json:"type"`
	// Full reads everything; otherwise the pass begins at the watermark, less the overlap.
	Full bool `json:"full"`
}

// PullResult says how far it came.
type PullResult struct {
	Counts cura.Counts `json:"counts"`
	Pages  int         `json:"pages"`
	// Done: the pass came to its end and its watermark has moved. Otherwise call again; it goes on where it stopped.
	Done bool `json:"done"`
	// Wait is how long the EHR asked to be left alone before the next call.
	Wait time.Duration `json:"wait,omitempty"`
}

// longestHold is the longest Retry-After that is sat out inside the activity; a longer one is a durable timer of the
// workflow.
const longestHold = 30 * time.Second

// PullType reads pages of one type and commits each with its cursor, until the pass is at its end, the chunk is full,
// the EHR wants a pause, or the worker stops. It resumes from the cursor in the database; killed anywhere, it loses and
// doubles nothing.
func (a *Activities) PullType(ctx context.Context, in PullInput) (PullResult, error) {
	result, err := a.pullType(ctx, in)
	return result, temporalError(ctx, err)
}

func (a *Activities) pullType(ctx context.Context, in PullInput) (result PullResult, err error) {
	conn, client, err := a.connect(ctx, in.Target)
	if err != nil {
		return result, err
	}
	pass := store.Pass{Connection: in.Connection, Type: in.Type, Run: in.Run}
	err = a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error {
		pass, err = tx.TakeLease(ctx, pass)
		return err
	})
	if fault.Is(err, fault.Busy) {
		return result, fault.Newf("taking the lease", fault.Busy, "another run is reading %s", in.Type).GivenUp(1)
	}
	if err != nil {
		return result, err
	}
	defer a.release(ctx, in.Org, pass)

	var pages atomic.Int64
	defer heartbeat(ctx, 2*time.Second, func() any { return pages.Load() })()

	p := &puller{
		a: a, in: in, client: client, pass: pass,
		intake: intake{a: a, pass: pass, target: in.Target, live: in.Target, strategy: conn.Match, base: conn.BaseURL},
	}
	began := time.Now()
	for {
		restarts, done, wait, err := p.page(ctx, &result.Counts)
		switch {
		case err != nil:
			return result, err
		case restarts:
			continue
		case done:
			result.Done = true
			return result, p.wake(ctx)
		case wait > 0:
			result.Wait = wait
			return result, nil
		}
		result.Pages++
		pages.Add(1)
		if result.Counts.Served >= a.cfg.ChunkResources || time.Since(began) >= a.cfg.ChunkTime || stopping(ctx) {
			return result, nil
		}
	}
}

func (a *Activities) release(ctx context.Context, org cura.OrgID, pass store.Pass) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := a.store.InOrg(ctx, org, func(tx *store.Tx) error { return tx.ReleaseLease(ctx, pass) }); err != nil {
		// The lease runs out by itself.
		a.log.WarnContext(ctx, "releasing a lease", "kind", string(fault.KindOf(err)))
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

// puller reads the pages of one pass, one after the other.
type puller struct {
	a      *Activities
	in     PullInput
	client *ehr.Client
	pass   store.Pass
	intake intake
}

// page takes the next page from the EHR to the tables. The order is the promise: fetch, decide, then rows, counts, audit
// and cursor in one transaction. Where the pass has to begin again instead, it says so.
func (p *puller) page(ctx context.Context, counts *cura.Counts) (restarts, done bool, wait time.Duration, err error) {
	query, cursor, err := p.next(ctx)
	if err != nil || cursor.Done {
		return false, cursor.Done, 0, err
	}
	page, wait, err := p.a.fetch(ctx, p.client, query)
	if err != nil {
		again, err := p.restart(ctx, cursor, err)
		return again, false, 0, err
	}
	if wait > 0 {
		return false, false, wait, nil
	}
	failpoint.Reach(failpoint.PageFetched)
	advance := store.Advance{Since: query.Since, Next: page.Next, Candidate: page.ServerTime}
	if query.Next != "" {
		advance.Candidate = *cursor.Candidate
	}
	p.intake.serverTime = page.ServerTime
	applied, err := p.apply(ctx, page.Entries, advance)
	if err != nil {
		return false, false, 0, err
	}
	*counts = counts.Plus(applied)
	failpoint.Reach(failpoint.PageCommitted)
	return false, page.Next == "", 0, nil
}

// apply decides a page and writes it. It is decided again when another connection has made a profile for one of its new
// patients meanwhile.
func (p *puller) apply(ctx context.Context, entries []fhir.Entry, advance store.Advance) (applied cura.Counts, err error) {
	for {
		items, err := p.intake.decide(ctx, entries)
		if err != nil {
			return applied, err
		}
		err = p.write(ctx, items, func(tx *store.Tx) error {
			var err error
			applied, err = tx.ApplyPage(ctx, p.pass, mappings.Version, items, advance)
			return err
		})
		if !errors.Is(err, store.ErrMatchedMeanwhile) {
			return applied, err
		}
	}
}

// write writes items in a transaction. When the database refuses them, they are gone through one by one, what it can't
// hold is quarantined, and they are written again.
func (p *puller) write(ctx context.Context, items []store.Item, fn func(*store.Tx) error) error {
	err := p.a.store.InOrg(ctx, p.in.Org, fn)
	if !fault.Is(err, fault.Data) {
		return err
	}
	if err := p.intake.setAside(ctx, items); err != nil {
		return err
	}
	return p.a.store.InOrg(ctx, p.in.Org, fn)
}

// maxRestarts is how often a pass may begin again because the server forgot its page links.
const maxRestarts = 3

// restart begins the pass again where that can help: the server has forgotten its page links, or its pages are too large.
// Otherwise it gives err back.
func (p *puller) restart(ctx context.Context, cursor store.Cursor, err error) (bool, error) {
	restarts, size := cursor.Restarts, cursor.PageSize
	switch {
	case fault.Is(err, fault.Expired) && restarts < maxRestarts:
		restarts++
	case errors.Is(err, ehr.ErrPageTooLarge) && size != 1:
		if size == 0 {
			size = p.a.cfg.PageSize
		}
		size = max(size/2, 1)
	case fault.Is(err, fault.Expired):
		if f, ok := errors.AsType[*fault.Error](err); ok {
			return false, f.GivenUp(restarts + 1)
		}
		return false, err
	default:
		return false, err
	}
	return true, p.a.store.InOrg(ctx, p.in.Org, func(tx *store.Tx) error { return tx.RestartPass(ctx, p.pass, restarts, size) })
}

// wake takes up what was set aside for want of its patient, once the patient is linked. The EHR serves such a resource
// again only when it changes, so it is read from the landing.
func (p *puller) wake(ctx context.Context) error {
	const batch = 200
	for {
		var waiting []store.Item
		err := p.a.store.InOrg(ctx, p.in.Org, func(tx *store.Tx) error {
			var err error
			waiting, err = tx.Woken(ctx, p.pass, batch)
			return err
		})
		if err != nil || len(waiting) == 0 {
			return err
		}
		items, err := p.intake.again(ctx, waiting)
		if err != nil {
			return err
		}
		err = p.write(ctx, items, func(tx *store.Tx) error { return tx.ApplyWoken(ctx, p.pass, mappings.Version, items) })
		if err != nil {
			return err
		}
	}
}

// next says what to ask the EHR for: the page that the cursor names, or the first one of the pass.
func (p *puller) next(ctx context.Context) (query ehr.Query, cursor store.Cursor, err error) {
	var watermark *time.Time
	err = p.a.store.InOrg(ctx, p.in.Org, func(tx *store.Tx) error {
		if cursor, err = tx.Cursor(ctx, p.pass); err != nil {
			return err
		}
		watermark, err = tx.Watermark(ctx, p.pass)
		return err
	})
	query = ehr.Query{Type: p.in.Type, Count: cursor.PageSize, Next: cursor.Next}
	switch {
	case err != nil || cursor.Done:
	case cursor.Next != "" && cursor.Since != nil:
		query.Since = *cursor.Since
	case cursor.Next == "" && watermark != nil && !p.in.Full:
		query.Since = watermark.Add(-p.a.cfg.Overlap)
	}
	return query, cursor, err
}

// fetch gets one page. What passes by itself is tried again, with backoff and jitter, a capped number of times; a server
// that throttles is waited for without counting, here or, when it asks for long, by the workflow.
func (a *Activities) fetch(ctx context.Context, client *ehr.Client, query ehr.Query) (ehr.Page, time.Duration, error) {
	began := time.Now()
	for attempt, throttles := 1, 1; ; {
		page, err := client.Search(ctx, query)
		if err == nil {
			if len(page.Dropped) > 0 {
				return page, 0, fault.Newf("searching "+string(query.Type), fault.Unsupported, "the server has ignored %d of the search parameters", len(page.Dropped)).
					WithFix("The profile generic needs a server with system-wide search by _lastUpdated; other servers can't be read yet")
			}
			if page.ServerTime.IsZero() {
				return page, 0, fault.New("searching "+string(query.Type), fault.Protocol, "the server sends no Date header, so no watermark can be set").
					WithFix("Ask the hospital to let the Date header through its gateway")
			}
			return page, 0, nil
		}
		wait, counted := a.retry(err, attempt, throttles)
		if wait < 0 {
			return ehr.Page{}, 0, err
		}
		throttles++
		if counted {
			attempt++
		} else if wait > longestHold || time.Since(began) > a.cfg.ChunkTime || stopping(ctx) {
			return ehr.Page{}, wait, nil
		}
		if err := hold(ctx, wait); err != nil {
			return ehr.Page{}, 0, err
		}
	}
}

// retry says how long to wait before trying again after err, and whether that uses up an attempt. A negative wait means
// not to try again.
func (a *Activities) retry(err error, attempt, throttles int) (wait time.Duration, counted bool) {
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
		if attempt >= a.cfg.RetryAttempts {
			_ = f.GivenUp(attempt)
			return -1, true
		}
		return Backoff(attempt, a.cfg.RetryInitial, a.cfg.RetryMax), true
	case fault.Auth, fault.Scope, fault.TLS, fault.Protocol, fault.Unsupported, fault.Data, fault.Config, fault.NotFound,
		fault.Conflict, fault.Busy, fault.Expired, fault.Unavailable:
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

package activities

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/store"
)

// paceAge is how old what is known of a connection's pace may be: what another worker has learnt is heeded that much
// later.
const paceAge = time.Second

// usualConcurrency is how many requests to a connection may be under way at once, where its profile doesn't say.
const usualConcurrency = 4

// pacer keeps the pace of one connection in this worker. It implements ehr.Pace: the client asks before every request and
// tells of every answer. What it learns is in the database, for all workers; while there is no budget and nothing to
// heed, a request costs no statement.
type pacer struct {
	a      *Activities
	target Target

	// reading is held while the database is asked what is known.
	reading sync.Mutex

	mu     sync.Mutex
	full   store.Capacity
	budget int
	known  store.Pace
	readAt time.Time
	// busy counts the requests under way; freed is closed when one of them ends.
	busy  int
	freed chan struct{}
	// throttles counts the throttles since the last good answer, for a server that doesn't say how long to wait.
	throttles int
}

// pace gives the pacer of a connection, whose EHR profile says what it may be asked for; nil: the usual. All clients of
// the connection in this process share one.
func (a *Activities) pace(t Target, p *profile.Profile) *pacer {
	full, budget := store.Capacity{PageSize: a.cfg.PageSize, Concurrency: usualConcurrency}, 0
	if p != nil {
		budget = p.RequestsPerMinute
		if p.PageSize > 0 {
			full.PageSize = p.PageSize
		}
		if p.Concurrency > 0 {
			full.Concurrency = p.Concurrency
		}
	}
	a.pacing.mu.Lock()
	defer a.pacing.mu.Unlock()
	known, ok := a.pacing.pacers[t.Connection]
	if !ok {
		known = &pacer{a: a, target: t, freed: make(chan struct{})}
		if a.pacing.pacers == nil {
			a.pacing.pacers = map[cura.ConnectionID]*pacer{}
		}
		a.pacing.pacers[t.Connection] = known
	}
	known.mu.Lock()
	defer known.mu.Unlock()
	known.full, known.budget = full, budget
	return known
}

// pacing is what a worker knows of pace: the pacers of its connections, and the slots that its orgs have taken.
type pacing struct {
	mu     sync.Mutex
	pacers map[cura.ConnectionID]*pacer
	slots  map[cura.OrgID]int
}

// takeSlot takes one of the org's slots for bulk reading in this worker, CURA_ORG_SLOTS in all. ok is false where they
// are taken; otherwise call release once, at the end.
func (a *Activities) takeSlot(org cura.OrgID) (release func(), ok bool) {
	p := &a.pacing
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slots[org] >= a.cfg.OrgSlots {
		return nil, false
	}
	if p.slots == nil {
		p.slots = map[cura.OrgID]int{}
	}
	p.slots[org]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.slots[org]--; p.slots[org] == 0 {
			delete(p.slots, org)
		}
	}, true
}

// PageSize is how many resources a page to ask for: most, or what throttling has taught.
func (p *pacer) PageSize(most int) int {
	if learnt := p.learnt().PageSize; learnt > 0 {
		return min(most, learnt)
	}
	return most
}

// Concurrency is how many requests to have under way at once: most, or what throttling has taught.
func (p *pacer) Concurrency(most int) int {
	if learnt := p.learnt().Concurrency; learnt > 0 {
		return min(most, learnt)
	}
	return most
}

// learnt is what was known of the pace when the last request was sent, or recall was called.
func (p *pacer) learnt() store.Pace {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known
}

// recall reads what earlier workers have learnt, so that the first request heeds it too.
func (p *pacer) recall(ctx context.Context) error {
	_, err := p.current(ctx)
	return err
}

// current is what is known of the pace, read again when it is older than paceAge.
func (p *pacer) current(ctx context.Context) (store.Pace, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	p.mu.Lock()
	known, readAt := p.known, p.readAt
	p.mu.Unlock()
	if time.Since(readAt) < paceAge {
		return known, nil
	}
	var fresh store.Pace
	err := p.a.store.InOrg(ctx, p.target.Org, func(tx *store.Tx) error {
		var err error
		fresh, err = tx.PaceOf(ctx, p.target.Connection)
		return err
	})
	if err != nil {
		return known, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readAt.Equal(readAt) { // otherwise an answer has taught more meanwhile
		p.known, p.readAt = fresh, time.Now()
	}
	return p.known, nil
}

// Wait implements ehr.Pace: it returns when the request may be sent. It sits out up to 30 s itself; where it takes
// longer, it returns a fault that says how long: Throttled, for a durable timer of the workflow, or Transient where the EHR is down. After an error
// Done must not be called.
func (p *pacer) Wait(ctx context.Context) error { return p.wait(ctx, p.probing()) }

// insisting is the pacer for what a person has asked for, such as an endpoint test: an EHR that is down is tried now, not
// when it is next probed. The budget, and a pause that the EHR asked for, are kept.
type insisting struct{ *pacer }

// Wait implements ehr.Pace.
func (p insisting) Wait(ctx context.Context) error { return p.wait(ctx, store.Probing{Insist: true}) }

func (p *pacer) wait(ctx context.Context, probing store.Probing) error {
	if err := p.enter(ctx); err != nil {
		return err
	}
	if err := p.turn(ctx, probing); err != nil {
		p.leave()
		return err
	}
	return nil
}

// enter waits until fewer requests are under way than may be.
func (p *pacer) enter(ctx context.Context) error {
	for {
		p.mu.Lock()
		limit := p.full.Concurrency
		if learnt := p.known.Concurrency; learnt > 0 {
			limit = min(limit, learnt)
		}
		if p.busy < limit {
			p.busy++
			p.mu.Unlock()
			return nil
		}
		freed := p.freed
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-freed:
		}
	}
}

func (p *pacer) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	close(p.freed)
	p.freed = make(chan struct{})
}

// turn waits until all workers together may send one more request.
func (p *pacer) turn(ctx context.Context, probing store.Probing) error {
	began := time.Now()
	for {
		known, err := p.current(ctx)
		if err != nil {
			return err
		}
		p.mu.Lock()
		budget := p.budget
		p.mu.Unlock()
		if known.Free(budget) {
			return nil
		}
		var turn store.Turn
		err = p.a.store.InOrg(ctx, p.target.Org, func(tx *store.Tx) error {
			var err error
			turn, err = tx.TakeToken(ctx, p.target.Connection, budget, probing)
			return err
		})
		if err != nil || turn.Wait == 0 {
			return err
		}
		if time.Since(began)+turn.Wait > longestHold {
			return tooLong(turn)
		}
		if err := sitOut(ctx, turn.Wait); err != nil {
			return err
		}
	}
}

func (p *pacer) probing() store.Probing {
	return store.Probing{Initial: p.a.cfg.ProbeInitial, Max: p.a.cfg.ProbeMax}
}

// tooLong is the fault of a request whose turn doesn't come soon.
func tooLong(turn store.Turn) error {
	kind, detail, fix := fault.Throttled, "", "Nothing to do: it goes on by itself"
	switch turn.For {
	case store.TurnForBudget:
		detail = "the connection's budget of requests a minute is used up"
		fix = "Nothing to do; where the hospital allows more: starter connection edit --budget"
	case store.TurnForHold:
		detail = "the server has asked for a pause"
	case store.TurnForProbe:
		kind = fault.Transient // waiting for a server that is down uses up attempts, as asking it would
		detail = fmt.Sprintf("the EHR is down: at least %d requests in a row have failed, and it is tried from time to time", store.DownAfter)
		fix = "Nothing to do once the EHR is up again; if it stays, ask the hospital about its server and the line to it"
	}
	return fault.New("waiting for a turn at the EHR", kind, detail).WithFix(fix).After(turn.Wait)
}

// sitOut waits, unless ctx ends or the worker stops first. It is called from commands as well, without an activity.
func sitOut(ctx context.Context, d time.Duration) error {
	if activity.IsActivity(ctx) {
		return hold(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Done implements ehr.Pace: it frees the request's place and heeds the answer. A zero Outcome, as of a request that was
// cancelled on our side, frees the place alone.
func (p *pacer) Done(o ehr.Outcome) {
	defer p.leave()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	p.mu.Lock()
	known, full := p.known, p.full
	p.mu.Unlock()
	if o.Err || o.Status != 0 {
		p.a.metrics.Request(ctx, o.Status)
	}
	var pace store.Pace
	var episode *store.Episode
	event := alertRaised
	var note func(*store.Tx) (err error)
	switch answerOf(o) {
	case answerThrottled:
		p.a.metrics.Throttled(ctx, p.target.Connection)
		throttle := store.Throttle{Hold: p.holdFor(o), Absurd: o.Absurd, Full: full}
		note = func(tx *store.Tx) (err error) {
			pace, err = tx.Throttled(ctx, p.target.Connection, throttle)
			return err
		}
	case answerFailed:
		note = func(tx *store.Tx) (err error) {
			pace, episode, err = tx.Failed(ctx, p.target.Connection, p.probing())
			return err
		}
	case answerGood:
		p.mu.Lock()
		p.throttles = 0
		p.mu.Unlock()
		if known.FailuresInARow == 0 && !known.Learnt() {
			return
		}
		event = alertCleared
		note = func(tx *store.Tx) (err error) {
			pace, episode, err = tx.Succeeded(ctx, p.target.Connection, full)
			return err
		}
	case answerNone:
		return
	}
	if err := p.a.store.InOrg(ctx, p.target.Org, note); err != nil {
		// The answer goes to whoever asked all the same; the pace is what it was.
		p.a.log.WarnContext(ctx, "noting an answer of an EHR", "connection_id", string(p.target.Connection), "kind", string(fault.KindOf(err)))
		return
	}
	p.mu.Lock()
	p.known, p.readAt = pace, time.Now()
	p.mu.Unlock()
	if episode != nil {
		p.a.send(ctx, failing(p.target, event, *episode))
	}
}

// holdFor is how long an answer that throttles holds everybody: as long as it says, and otherwise longer each time.
func (p *pacer) holdFor(o ehr.Outcome) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.throttles++
	if o.RetryAfter > 0 {
		return o.RetryAfter
	}
	return Backoff(p.throttles, p.a.cfg.RetryInitial, p.a.cfg.RetryMax)
}

// answerKind is what an answer says about the pace.
type answerKind int

const (
	answerNone answerKind = iota // there is nothing to learn from it
	answerGood                   // the server answers, be it a refusal
	answerThrottled
	answerFailed
)

func answerOf(o ehr.Outcome) answerKind {
	switch {
	case o.Status == http.StatusTooManyRequests, o.Status == http.StatusServiceUnavailable && (o.RetryAfter > 0 || o.Absurd):
		return answerThrottled
	case o.Err, o.Status == http.StatusRequestTimeout, o.Status >= 500 && o.Status != http.StatusNotImplemented:
		return answerFailed
	case o.Status != 0:
		return answerGood
	}
	return answerNone
}

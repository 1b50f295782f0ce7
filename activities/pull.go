package activities

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
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
	// Since and Until bound a range of _lastUpdated that a person wants read again; then no watermark moves.
	Since *time.Time `json:"since,omitempty"`
	Until *time.Time `json:"until,omitempty"`
	// Patients narrows the read to these: ids of roster members or of patient links.
	Patients []string `json:"patients,omitempty"`
	// Ahead has other readers of the type step aside: a person waits.
	Ahead bool `json:"ahead,omitempty"`
}

// part reports whether less than everything new was asked for.
func (in PullInput) part() bool { return in.Since != nil || in.Until != nil }

// PullResult says how far it came.
type PullResult struct {
	Counts cura.Counts `json:"counts"`
	Pages  int         `json:"pages"`
	// Done: the pass came to its end and its watermark has moved. Otherwise call again; it goes on where it stopped.
	Done bool `json:"done"`
	// Wait is how long the EHR asked to be left alone before the next call.
	Wait time.Duration `json:"wait,omitempty"`
	// Paused: an operator has paused the connection or the type.
	Paused bool `json:"paused,omitempty"`
	// Yielded: the org has its share of the worker's slots already, or somebody goes ahead; call again after a moment.
	Yielded bool `json:"yielded,omitempty"`
}

// PullType reads pages of one type and commits each with its cursor, until the pass is at its end, the chunk is full,
// the EHR wants a pause, an operator has paused it, somebody goes ahead, or the worker stops. It resumes from the cursor
// in the database; killed anywhere, it loses and doubles nothing.
func (a *Activities) PullType(ctx context.Context, in PullInput) (PullResult, error) {
	result, err := a.pullType(ctx, in)
	return result, temporalError(ctx, err)
}

func (a *Activities) pullType(ctx context.Context, in PullInput) (PullResult, error) {
	if !in.Ahead {
		release, ok := a.takeSlot(in.Org)
		if !ok {
			return PullResult{Yielded: true}, nil
		}
		defer release()
	}
	p, err := a.newPuller(ctx, in)
	if err != nil {
		return PullResult{}, err
	}
	if err := p.takeLease(ctx); err != nil {
		return PullResult{}, err
	}
	defer p.release(ctx)
	defer heartbeat(ctx, func() any { return p.pages.Load() })()
	defer p.keepLease(ctx)()

	p.sink = landing{p}
	end, err := p.read(ctx)
	if err == nil && end.done {
		err = p.wake(ctx)
	}
	return PullResult{
		Counts: p.counts, Pages: int(p.pages.Load()), Done: end.done, Wait: end.wait, Paused: end.paused, Yielded: p.wanted.Load(),
	}, err
}

// puller reads one type of a connection for a run.
type puller struct {
	a      *Activities
	in     PullInput
	conn   store.ConnectionState
	client *ehr.Client
	pace   *pacer
	choice cura.StrategyChoice
	rules  profile.Rules
	pass   store.Pass
	sink   sink
	// overrides are what the connection's resources are mapped with; nil: it has none.
	overrides *mappings.Overrides
	// comparing: pages are compared with the tables, and nothing is moved.
	comparing bool
	began     time.Time
	// pages counts what was committed; wanted is set when somebody waits for the lease who goes ahead.
	pages  atomic.Int64
	wanted atomic.Bool
	// sifting is set once the server, being up, couldn't give a page: it is asked less often for what it may not give.
	sifting atomic.Bool

	mu     sync.Mutex
	counts cura.Counts
}

func (a *Activities) newPuller(ctx context.Context, in PullInput) (*puller, error) {
	conn, open, err := a.connect(ctx, in.Target)
	if err != nil {
		return nil, err
	}
	p := &puller{
		a: a, in: in, conn: conn, client: open.client, pace: open.pace, began: time.Now(),
		pass: store.Pass{Connection: in.Connection, Type: in.Type, Run: in.Run},
	}
	if p.choice, p.rules, err = a.strategy(ctx, conn, open.profile, in.Type); err != nil {
		return nil, err
	}
	p.overrides, err = a.overrides(ctx, conn)
	return p, err
}

// strategy says how a type is read: as the last endpoint test has found, else as the operator or the profile says. It fails for a
// type that isn't read at all: one that the vendor doesn't offer, and one that the site's overrides leave out.
func (a *Activities) strategy(ctx context.Context, conn store.ConnectionState, vendor *profile.Profile, t cura.ResourceType) (cura.StrategyChoice, profile.Rules, error) {
	rules, offered := vendor.Rules(t)
	if !offered {
		return cura.StrategyChoice{}, rules, fault.Newf("reading "+string(t), fault.Unsupported, "the profile %s says that the vendor doesn't offer it", vendor.Name).
			WithFix("Take it off the connection's types: starter connection edit --types …")
	}
	if err := a.taken(ctx, conn, t); err != nil {
		return cura.StrategyChoice{}, rules, err
	}
	var known []cura.StrategyChoice
	err := a.store.InOrg(ctx, conn.OrgID, func(tx *store.Tx) error {
		var err error
		known, err = tx.Strategies(ctx, conn.ID)
		return err
	})
	if err != nil {
		return cura.StrategyChoice{}, rules, err
	}
	for _, choice := range known {
		override := conn.Strategies[t]
		if choice.Type == t && (override == "" || override == choice.Strategy) {
			return choice, rules, nil
		}
	}
	return profile.Choose(vendor, t, profile.Evidence{}, conn.Strategies[t]), rules, nil
}

// end says why reading stopped without a fault. With nothing set the chunk is full, or the worker stops.
type end struct {
	// done: the pass is over.
	done bool
	// wait is how long the EHR wants to be left alone.
	wait time.Duration
	// paused: by an operator.
	paused bool
}

// read reads as the strategy says.
func (p *puller) read(ctx context.Context) (end, error) {
	if len(p.in.Patients) > 0 || p.choice.Strategy.ByPatient() {
		return p.readPatients(ctx)
	}
	if stop, e, err := p.catchUp(ctx); stop || err != nil {
		return e, err
	}
	return p.readSystem(ctx)
}

// interrupted looks at what can stop a read between two requests.
func (p *puller) interrupted(ctx context.Context) (stop bool, e end, err error) {
	if p.wanted.Load() || p.count().Served >= p.a.cfg.ChunkResources || time.Since(p.began) >= p.a.cfg.ChunkTime || stopping(ctx) {
		return true, end{}, nil
	}
	e.paused, err = p.a.paused(ctx, p.in.Target, p.in.Type)
	return e.paused, e, err
}

func (p *puller) count() cura.Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

func (p *puller) add(counts cura.Counts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts = p.counts.Plus(counts)
}

// inOrg is a transaction of the connection's org.
func (p *puller) inOrg(ctx context.Context, fn func(*store.Tx) error) error {
	return p.a.store.InOrg(ctx, p.in.Org, fn)
}

// query is a search of a slice at a cursor.
func (p *puller) query(params map[string][]string, c store.Cursor) ehr.Query {
	q := ehr.Query{Type: p.in.Type, Params: params, Count: p.pageSize(c), Next: c.Next}
	if c.Since != nil {
		q.Since = *c.Since
	}
	if c.Until != nil {
		q.Until = *c.Until
	}
	return q
}

// pageSize is the _count to ask for: the type's or the profile's largest, less what the server's throttling or the size of
// its pages have taught.
func (p *puller) pageSize(c store.Cursor) int {
	size := p.a.cfg.PageSize
	if p.rules.PageSize > 0 {
		size = min(size, p.rules.PageSize)
	}
	size = p.pace.PageSize(size)
	if c.PageSize > 0 {
		size = min(size, c.PageSize)
	}
	return size
}

// aheadPause is how long one who goes ahead waits before asking for the lease again.
const aheadPause = 100 * time.Millisecond

func (p *puller) takeLease(ctx context.Context) error {
	for {
		err := p.inOrg(ctx, func(tx *store.Tx) error {
			var err error
			p.pass, err = tx.TakeLease(ctx, p.pass)
			return err
		})
		if !fault.Is(err, fault.Busy) {
			return err
		}
		if !p.in.Ahead || time.Since(p.began) > p.a.cfg.ChunkTime {
			return fault.Newf("taking the lease", fault.Busy, "another run is reading %s", p.in.Type).GivenUp(1)
		}
		if err := p.inOrg(ctx, func(tx *store.Tx) error { return tx.WantLease(ctx, p.pass) }); err != nil {
			return err
		}
		if err := hold(ctx, aheadPause); err != nil {
			return err
		}
	}
}

// keepLease renews the lease while a read goes on, and notices who wants it.
func (p *puller) keepLease(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			// One that fails is tried again in a second; one that is lost is noticed by the next page.
			_ = p.inOrg(ctx, func(tx *store.Tx) error {
				wanted, err := tx.RenewLease(ctx, p.pass)
				if wanted {
					p.wanted.Store(true)
				}
				return err
			})
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

func (p *puller) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := p.inOrg(ctx, func(tx *store.Tx) error { return tx.ReleaseLease(ctx, p.pass) }); err != nil {
		// The lease runs out by itself.
		p.a.log.WarnContext(ctx, "releasing a lease", "kind", string(fault.KindOf(err)))
	}
}

// wake takes up what was set aside for want of its patient, once the patient is linked, and patients about whom a person has
// decided. The EHR serves such a resource again only when it changes, so it is read from the landing.
func (p *puller) wake(ctx context.Context) error {
	const batch = 200
	for {
		var waiting []store.Item
		err := p.inOrg(ctx, func(tx *store.Tx) error {
			var err error
			waiting, err = tx.Woken(ctx, p.pass, batch)
			return err
		})
		if err != nil || len(waiting) == 0 {
			return err
		}
		in := p.intake(time.Time{})
		items, err := in.again(ctx, waiting)
		if err != nil {
			return err
		}
		err = p.write(ctx, in, items, func(tx *store.Tx) error { return tx.ApplyWoken(ctx, p.pass, p.overrides.Version(), items) })
		if err != nil && !errors.Is(err, store.ErrSettledMeanwhile) { // then what is waiting is read again
			return err
		}
	}
}

package activities

import (
	"context"
	"net/url"
	"time"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// siftAttempts is how often a request is tried while a server that is up is searched for what it can't give.
const siftAttempts = 2

// fetch gets one page.
func (p *puller) fetch(ctx context.Context, query ehr.Query) (ehr.Page, time.Duration, error) {
	return p.a.fetch(ctx, p.client, query, p.attempts())
}

func (p *puller) attempts() int {
	if p.sifting.Load() {
		return min(siftAttempts, p.a.cfg.RetryAttempts)
	}
	return p.a.cfg.RetryAttempts
}

// siftable is how few resources a window must hold for them to be read one by one.
const siftable = 20

// aroundPoison deals with a page that the server can't give, try as often as one may (DOMAIN §5: one resource's faulty data
// turns its page into a 500). Where the server still lists the window's ids it is up, and the page is poisoned: the window
// is narrowed until it holds a few, which are read one by one; what can't be read is quarantined. Else the server is down.
func (p *puller) aroundPoison(ctx context.Context, searches []url.Values, c store.Cursor, cause error) (wait time.Duration, err error) {
	window := store.Cursor{Since: c.Since, Until: c.Until, PageSize: siftable + 1}
	query := p.query(searches[c.Slice], window)
	query.IDsOnly = true
	listed, err := p.client.Search(ctx, query)
	if err != nil {
		return 0, cause
	}
	p.sifting.Store(true)
	if listed.Next != "" || len(listed.Entries) > siftable {
		// The window's end is known by the ids' count, where the server counts.
		narrowed, err := p.narrow(ctx, searches[c.Slice], c, siftable, cause)
		if err != nil {
			return 0, err
		}
		failpoint.Reach(failpoint.WindowNarrowed)
		return 0, p.inOrg(ctx, func(tx *store.Tx) error { return tx.MoveCursor(ctx, p.pass, narrowed) })
	}
	page, bad, wait, err := p.readEach(ctx, listed)
	if err != nil || wait > 0 {
		return wait, err
	}
	c.Next, c.Rows, c.Total = "", 0, 0
	next, candidate, err := p.following(ctx, searches, c, page)
	if err != nil {
		return 0, err
	}
	items, err := p.sink.prepare(ctx, page)
	if err != nil {
		return 0, err
	}
	return 0, p.sink.take(ctx, p.pass, page, append(items, bad...), store.Advance{Cursor: next, Candidate: candidate, Part: p.in.part()})
}

// readEach reads the listed resources one by one. What the server has no more is left out; what it can't give comes back
// as items in quarantine. With wait the EHR wants a pause, and nothing of it counts.
func (p *puller) readEach(ctx context.Context, listed ehr.Page) (page ehr.Page, bad []store.Item, wait time.Duration, err error) {
	page = ehr.Page{ServerTime: listed.ServerTime}
	for _, e := range listed.Entries {
		one, wait, err := p.readOne(ctx, e.ID)
		switch {
		case wait > 0:
			return page, nil, wait, nil
		case err == nil:
			page.Entries = append(page.Entries, one.Entries...)
		case fault.Is(err, fault.NotFound):
		case fault.Is(err, fault.Transient) || fault.Is(err, fault.Data):
			bad = append(bad, unreadable(p.in.Type, e.ID))
		default:
			return page, nil, 0, err
		}
	}
	failpoint.Reach(failpoint.PoisonPassed)
	return page, bad, 0, nil
}

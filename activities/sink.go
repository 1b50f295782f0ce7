package activities

import (
	"context"
	"errors"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/store"
)

// sink is where pages go: into Cura's tables, or beside them to compare. prepare is the costly part that depends on the page
// alone, and runs while the page before is taken.
type sink interface {
	prepare(ctx context.Context, page ehr.Page) ([]store.Item, error)
	// take commits the page and where the pass stands then, in one transaction.
	take(ctx context.Context, pass store.Pass, page ehr.Page, items []store.Item, advance store.Advance) error
}

// landing puts pages into Cura's tables.
type landing struct{ p *puller }

func (p *puller) intake(serverTime time.Time) *intake {
	return &intake{
		a: p.a, pass: p.pass, target: p.in.Target, live: p.in.Target, strategy: p.conn.Match, base: p.conn.BaseURL, serverTime: serverTime,
		policy: p.conn.PullConsent, overrides: p.overrides,
	}
}

func (l landing) prepare(ctx context.Context, page ehr.Page) ([]store.Item, error) {
	return l.p.intake(page.ServerTime).prepare(ctx, page.Entries)
}

// take settles what became of each resource and writes it. It is settled again when what it was settled by has changed
// meanwhile: another connection has made a profile for one of the page's new patients, or a link has moved.
func (l landing) take(ctx context.Context, pass store.Pass, page ehr.Page, items []store.Item, advance store.Advance) error {
	in := l.p.intake(page.ServerTime)
	for {
		if err := in.settle(ctx, items); err != nil {
			return err
		}
		var counts cura.Counts
		err := l.p.write(ctx, in, items, func(tx *store.Tx) error {
			var err error
			if counts, err = tx.ApplyPage(ctx, pass, in.overrides.Version(), items, advance); err != nil {
				return err
			}
			if len(in.leftOut) > 0 && pass.Partition == "" {
				if err := tx.LeaveOut(ctx, pass, in.leftOut); err != nil {
					return err
				}
			}
			return tx.Met(ctx, pass, items)
		})
		if errors.Is(err, store.ErrSettledMeanwhile) {
			continue
		}
		if err == nil {
			l.p.add(counts)
			l.p.a.metrics.Resources(ctx, l.p.in.Type, counts)
			l.p.pages.Add(1)
			failpoint.Reach(failpoint.PageCommitted)
		}
		return err
	}
}

// write writes items in a transaction. When the database refuses them, they are gone through one by one, what it can't
// hold is quarantined, and they are written again.
func (p *puller) write(ctx context.Context, in *intake, items []store.Item, fn func(*store.Tx) error) error {
	err := p.inOrg(ctx, fn)
	if !fault.Is(err, fault.Data) {
		return err
	}
	if err := in.setAside(ctx, items); err != nil {
		return err
	}
	return p.inOrg(ctx, fn)
}

// comparison compares pages with Cura's tables, and writes nothing but what differs.
type comparison struct{ p *puller }

func (c comparison) prepare(ctx context.Context, page ehr.Page) ([]store.Item, error) {
	in := c.p.intake(page.ServerTime)
	if store.ConsentScoped(in.policy, c.p.in.Type) {
		return in.prepare(ctx, page.Entries) // whose each is decides
	}
	items := make([]store.Item, len(page.Entries))
	for i, e := range page.Entries {
		items[i] = in.newItem(e)
	}
	return items, nil
}

// take notes what differs. That Cura lacks what it withholds is no difference.
func (c comparison) take(ctx context.Context, pass store.Pass, page ehr.Page, items []store.Item, advance store.Advance) error {
	advance.Part = true
	in := c.p.intake(page.ServerTime)
	if store.ConsentScoped(in.policy, pass.Type) {
		if err := in.settle(ctx, items); err != nil {
			return err
		}
	}
	err := c.p.inOrg(ctx, func(tx *store.Tx) error {
		if err := tx.ComparePage(ctx, pass, items, advance); err != nil {
			return err
		}
		for i := range items {
			if items[i].Outcome != store.Withheld {
				continue
			}
			if err := tx.DropDifference(ctx, pass.Run, store.Difference{Type: pass.Type, EHRID: items[i].EHRID}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		c.p.add(cura.Counts{Served: len(items)})
		c.p.pages.Add(1)
		failpoint.Reach(failpoint.PageCompared)
	}
	return err
}

// unreadable is the item of a resource that the server lists and can't give.
func unreadable(t cura.ResourceType, id string) store.Item {
	it := store.Item{EHRID: id}
	if !fhir.IsID(id) {
		it.EHRID = "unreadable:" + id
	}
	reject(&it, store.Reason{Path: string(t), Text: "can't be given by the server: it answers with an error for this resource alone"})
	return it
}

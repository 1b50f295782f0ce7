package activities

import (
	"context"
	"errors"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// ReconcileInput says which type of a connection to compare with its source.
type ReconcileInput struct {
	Target
	Run  string            `json:"run"`
	Type cura.ResourceType `json:"type"`
	// Repair mends what differs: it reads what Cura lacks or has otherwise, and makes tombstones of what is gone.
	Repair bool `json:"repair"`
}

// ReconcileResult says how far it came.
type ReconcileResult struct {
	// Done: Reconciliation is the outcome. Otherwise call again.
	Done           bool                `json:"done"`
	Pages          int                 `json:"pages"`
	Wait           time.Duration       `json:"wait,omitempty"`
	Paused         bool                `json:"paused,omitempty"`
	Yielded        bool                `json:"yielded,omitempty"`
	Reconciliation cura.Reconciliation `json:"reconciliation"`
}

// maxChecked bounds how many differences are looked at one by one.
const maxChecked = 10_000

// ReconcileType reads a type whole and compares it with Cura's by id and content hash. Both sides move meanwhile, so each
// difference is looked at again by itself before it counts.
func (a *Activities) ReconcileType(ctx context.Context, in ReconcileInput) (ReconcileResult, error) {
	result, err := a.reconcileType(ctx, in)
	return result, temporalError(ctx, err)
}

func (a *Activities) reconcileType(ctx context.Context, in ReconcileInput) (ReconcileResult, error) {
	var result ReconcileResult
	release, ok := a.takeSlot(in.Org)
	if !ok {
		return ReconcileResult{Yielded: true}, nil
	}
	defer release()
	p, err := a.newPuller(ctx, PullInput{Target: in.Target, Run: in.Run, Type: in.Type, Full: true})
	if err != nil {
		return result, err
	}
	if result.Reconciliation, result.Done, err = p.reconciled(ctx); err != nil || result.Done {
		return result, err
	}
	defer heartbeat(ctx, func() any { return p.pages.Load() })()
	p.sink, p.comparing = comparison{p}, true
	e, err := p.read(ctx)
	result.Pages, result.Wait, result.Paused = int(p.pages.Load()), e.wait, e.paused
	if err != nil || !e.done {
		return result, err
	}
	c := &checker{puller: p, repair: in.Repair}
	if result.Wait, err = c.check(ctx); err != nil || result.Wait > 0 {
		return result, err
	}
	result.Reconciliation, err = c.close(ctx)
	result.Done = err == nil
	return result, err
}

// reconciled gives the outcome where the run has come to it before.
func (p *puller) reconciled(ctx context.Context) (found cura.Reconciliation, done bool, err error) {
	err = p.inOrg(ctx, func(tx *store.Tx) error {
		all, err := tx.Reconciliations(ctx, p.in.Run)
		for _, r := range all {
			if r.Type == p.in.Type {
				found, done = r, true
			}
		}
		return err
	})
	return found, done, err
}

// checker looks at differences one by one.
type checker struct {
	*puller

	repair bool
	result cura.Reconciliation
}

// check looks at each difference again: is it still one? With repair it is mended, under the type's lease.
func (c *checker) check(ctx context.Context) (wait time.Duration, err error) {
	byRoster := c.choice.Strategy.ByPatient()
	var differences []store.Difference
	err = c.inOrg(ctx, func(tx *store.Tx) error {
		if err := tx.Extras(ctx, c.pass, byRoster); err != nil {
			return err
		}
		differences, err = tx.Differences(ctx, c.in.Run, c.in.Type, maxChecked)
		return err
	})
	if err != nil || len(differences) == 0 {
		return 0, err
	}
	if c.repair {
		c.in.Ahead = true // a few reads: other readers step aside for them
		if err := c.takeLease(ctx); err != nil {
			return 0, err
		}
		defer c.release(ctx)
		defer c.keepLease(ctx)()
	}
	for _, d := range differences {
		agreed, wait, err := c.one(ctx, d)
		if err != nil || wait > 0 {
			return wait, err
		}
		if !agreed {
			continue
		}
		if err := c.inOrg(ctx, func(tx *store.Tx) error { return tx.DropDifference(ctx, c.in.Run, d) }); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// one looks at one difference, and reports whether the source and Cura agree now.
func (c *checker) one(ctx context.Context, d store.Difference) (agreed bool, wait time.Duration, err error) {
	page, wait, err := c.readOne(ctx, d.EHRID)
	switch {
	case wait > 0:
		return false, wait, nil
	case fault.Is(err, fault.NotFound):
		agreed, err = c.gone(ctx, d.EHRID, errors.Is(err, ehr.ErrGone))
		return agreed, 0, err
	case aboutOnePatient(fault.KindOf(err)):
		// It can't be read: it isn't known to differ, and is quarantined where Cura has nothing of it.
		c.result.Unreadable++
		return true, 0, nil
	case err != nil:
		return false, 0, err
	}
	items, err := comparison{c.puller}.prepare(ctx, page)
	if err != nil {
		return false, 0, err
	}
	var same bool
	err = c.inOrg(ctx, func(tx *store.Tx) error {
		var err error
		same, err = tx.Has(ctx, c.pass, items)
		return err
	})
	if err != nil || same || !c.repair {
		return same, 0, err
	}
	mended, err := c.mend(ctx, page)
	return mended, 0, err
}

// mend takes what was read of one resource, as a pull would. Of a type that is read by patient, the patient must be on the
// roster; of another it is none of ours, which isn't a difference either.
func (c *checker) mend(ctx context.Context, page ehr.Page) (agreed bool, err error) {
	sink := landing{c.puller}
	items, err := sink.prepare(ctx, page)
	if err != nil {
		return false, err
	}
	pass := c.pass
	if c.choice.Strategy.ByPatient() && len(items) == 1 && items[0].Mapped == store.Stored {
		err = c.inOrg(ctx, func(tx *store.Tx) error {
			members, err := tx.MembersByEHRID(ctx, c.in.Connection, []string{items[0].Record.PatientEHRID})
			pass.Partition = members[items[0].Record.PatientEHRID].ID
			return err
		})
		if err != nil || pass.Partition == "" {
			return err == nil, err
		}
	}
	if err := sink.take(ctx, pass, page, items, store.Advance{Keep: true}); err != nil {
		return false, err
	}
	c.result.Repaired++
	return true, nil
}

// gone deals with what the source has no more. 410 says so; 404 must come after two whole reads without it.
func (c *checker) gone(ctx context.Context, id string, deleted bool) (agreed bool, err error) {
	err = c.inOrg(ctx, func(tx *store.Tx) error {
		heads, err := tx.Heads(ctx, c.in.Connection, c.in.Type, []string{id})
		if err != nil {
			return err
		}
		if _, ours := heads[id]; !ours {
			agreed = true // it has come and gone
			return nil
		}
		if !c.repair {
			return nil
		}
		reason := cura.GoneDeleted
		if !deleted {
			times, err := tx.Absent(ctx, c.pass, id)
			if err != nil || times < absencesBeforeAsking {
				return err
			}
			reason = cura.GoneAbsent
		}
		marked, err := tx.Tombstone(ctx, c.pass, []string{id}, reason)
		c.result.Repaired += int64(marked)
		agreed = err == nil
		return err
	})
	return agreed, err
}

// close writes the outcome.
func (c *checker) close(ctx context.Context) (cura.Reconciliation, error) {
	if c.choice.Strategy == cura.StrategySystem {
		n, counts, err := c.client.Count(ctx, ehr.Query{Type: c.in.Type})
		if err == nil && counts {
			counted := int64(n)
			c.result.Counted = &counted
		}
	}
	err := c.inOrg(ctx, func(tx *store.Tx) error {
		var err error
		c.result, err = tx.PutReconciliation(ctx, c.pass, c.result, c.choice.Strategy.ByPatient())
		return err
	})
	return c.result, err
}

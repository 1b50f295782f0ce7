package activities

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// Selection says which landed resources are decided again.
type Selection struct {
	// Only is empty for all, or RetakeQuarantined or RetakeDecided.
	Only string `json:"only,omitempty"`
	// Patients narrows it to what is known to be about these: our own ids of patient links.
	Patients []string `json:"patients,omitempty"`
	// Quarantine, Path and Reason narrow RetakeQuarantined: to the entry of that id, to reasons about an element or within it, to
	// reasons with these words.
	Quarantine string `json:"quarantine,omitempty"`
	Path       string `json:"path,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

// The selections by what was decided before.
const (
	// RetakeQuarantined: what is in quarantine.
	RetakeQuarantined = "quarantined"
	// RetakeDecided: patients about whom a person has decided, and what has waited for patients who are linked by now.
	RetakeDecided = "decided"
)

// BeginRemapInput opens a run that maps again.
type BeginRemapInput struct {
	Target
	Run        string `json:"run"`
	WorkflowID string `json:"workflow_id"`
	// Types narrows it; empty: all of which something has landed.
	Types []cura.ResourceType `json:"types,omitempty"`
}

// BeginRemapResult says what the run has to map.
type BeginRemapResult struct {
	// Types are in the order of mapping: Patient and Consent first.
	Types []cura.ResourceType `json:"types"`
	// MappingVersion is what the whole run maps with.
	MappingVersion string `json:"mapping_version"`
}

// BeginRemap records that a run has begun that maps again what has landed. Nothing is asked of the EHR, so types that an operator
// has paused, or that are switched off, are mapped too.
func (a *Activities) BeginRemap(ctx context.Context, in BeginRemapInput) (BeginRemapResult, error) {
	result, err := a.beginRemap(ctx, in)
	return result, temporalError(ctx, err)
}

func (a *Activities) beginRemap(ctx context.Context, in BeginRemapInput) (result BeginRemapResult, err error) {
	conn, err := a.landed(ctx, in.Target)
	if err != nil {
		return result, err
	}
	overrides, err := a.overrides(ctx, conn)
	if err != nil {
		return result, err
	}
	result.MappingVersion = overrides.Version()
	err = a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error {
		types, err := tx.LandedTypes(ctx, in.Connection)
		if err != nil {
			return err
		}
		for _, t := range types {
			if len(in.Types) == 0 || slices.Contains(in.Types, t) {
				result.Types = append(result.Types, t)
			}
		}
		if err := tx.StartRun(ctx, store.Run{ID: in.Run, Connection: in.Connection, Kind: cura.RunRemap, WorkflowID: in.WorkflowID}); err != nil {
			return err
		}
		return tx.DropRemapSamples(ctx, in.Connection, in.Run)
	})
	return result, err
}

// landed reads a connection for mapping again what it has brought.
func (a *Activities) landed(ctx context.Context, t Target) (conn store.ConnectionState, err error) {
	err = a.store.InOrg(ctx, t.Org, func(tx *store.Tx) error {
		conn, err = tx.Connection(ctx, t.Connection)
		return err
	})
	if err == nil && conn.RemovedAt != nil {
		err = fault.Newf("mapping again", fault.NotFound, "connection %s has been removed", t.Connection)
	}
	return conn, err
}

// RetakeInput says what to decide again: landed resources of one type.
type RetakeInput struct {
	Target
	Run  string            `json:"run"`
	Type cura.ResourceType `json:"type"`
	Selection
	// DryRun writes nothing but what would come of it.
	DryRun bool `json:"dry_run,omitempty"`
	// MappingVersion is what the run maps with (BeginRemap): where another one holds by now it ends with fault.Conflict.
	MappingVersion string `json:"mapping_version"`
	// Ahead has readers of the type step aside: a person waits.
	Ahead bool `json:"ahead,omitempty"`
}

// RetakeResult says how far it came.
type RetakeResult struct {
	// Retaken is the sum of the run so far.
	Retaken Retaken `json:"retaken"`
	Pages   int     `json:"pages"`
	// Done: the type is at its end. Otherwise call again; it goes on where it stopped.
	Done bool `json:"done"`
	// Yielded: the org has its share of the worker's slots already, or a reader has the type; call again after a moment.
	Yielded bool `json:"yielded,omitempty"`
}

// Retaken is what has become of a type's resources.
type Retaken = store.Retaken

// Retake decides landed resources again, as a pull decides about what it is served: validated, mapped, matched, withheld and
// stored by the rules as they are now. The EHR isn't asked. Where it stands is in the database, written with each page; killed
// anywhere, it loses and doubles nothing. Done again it changes nothing.
func (a *Activities) Retake(ctx context.Context, in RetakeInput) (RetakeResult, error) {
	result, err := a.retake(ctx, in)
	return result, temporalError(ctx, err)
}

func (a *Activities) retake(ctx context.Context, in RetakeInput) (RetakeResult, error) {
	if !in.Ahead {
		release, ok := a.takeSlot(in.Org)
		if !ok {
			return RetakeResult{Yielded: true}, nil
		}
		defer release()
	}
	r, err := a.newRetaker(ctx, in)
	if err != nil {
		return RetakeResult{}, err
	}
	defer heartbeat(ctx, func() any { return r.pages.Load() })()
	if in.Only == RetakeDecided {
		return RetakeResult{Retaken: Retaken{Type: in.Type}, Done: true}, r.takeUp(ctx)
	}
	err = r.inOrg(ctx, func(tx *store.Tx) error {
		r.state, err = tx.BeginRetake(ctx, r.pass, in.DryRun, r.overrides.Version())
		return err
	})
	if err == nil && !r.state.Done {
		err = r.through(ctx)
	}
	yielded := errors.Is(err, errReaderHasIt)
	if yielded {
		err = nil
	}
	return RetakeResult{Retaken: r.state.Retaken, Pages: int(r.pages.Load()), Done: r.state.Done, Yielded: yielded}, err
}

// retaker decides the landed resources of one type again. What it shares with a puller is how resources are settled and written.
type retaker struct {
	*puller

	ask   RetakeInput
	state store.RetakeState
}

func (a *Activities) newRetaker(ctx context.Context, in RetakeInput) (*retaker, error) {
	conn, err := a.landed(ctx, in.Target)
	if err != nil {
		return nil, err
	}
	overrides, err := a.overrides(ctx, conn)
	if err != nil {
		return nil, err
	}
	if overrides.Version() != in.MappingVersion {
		return nil, fault.New("mapping again", fault.Conflict, "the mapping has changed since the run began").
			WithFix("Begin anew: starter remap " + string(in.Connection))
	}
	return &retaker{ask: in, puller: &puller{
		a: a, in: PullInput{Target: in.Target, Run: in.Run, Type: in.Type, Ahead: in.Ahead}, conn: conn, overrides: overrides, began: time.Now(),
		pass: store.Pass{Connection: in.Connection, Type: in.Type, Run: in.Run},
	}}, nil
}

// takeUp does what a pull does at its end.
func (r *retaker) takeUp(ctx context.Context) error {
	if err := r.takeLease(ctx); err != nil {
		return err
	}
	defer r.release(ctx)
	defer r.keepLease(ctx)()
	return r.wake(ctx)
}

// decided is a page of landed resources with what is decided about each.
type decided struct {
	// after is where the page begins, and last is its last resource.
	after, last string
	in          *intake
	landed      []store.Landed
	// items are of those that have been landed with their content.
	items []store.Item
}

// through decides page by page, the next one while one is written, until the end of the type, or until the chunk is full.
func (r *retaker) through(ctx context.Context) error {
	if r.overrides.Excludes(r.ask.Type) {
		return r.exclude(ctx)
	}
	page, err := r.decide(ctx, r.state.After, "")
	for err == nil && len(page.landed) > 0 {
		pages := int(r.pages.Load())
		full := pages*r.a.cfg.PageSize >= r.a.cfg.ChunkResources || time.Since(r.began) >= r.a.cfg.ChunkTime
		if stopping(ctx) || pages > 0 && full { // a page at least, however slow the machine is
			return nil
		}
		var next decided
		group, both := errgroup.WithContext(ctx)
		group.Go(func() error {
			var err error
			next, err = r.decide(both, page.last, "")
			return err
		})
		group.Go(func() error { return r.take(both, page) })
		err = group.Wait()
		page = next
	}
	if err != nil {
		return err
	}
	end := store.RetakenPage{After: r.state.After, State: r.state}
	end.State.Done = true
	return r.note(ctx, end)
}

// exclude counts the resources of a type of which the overrides take none.
func (r *retaker) exclude(ctx context.Context) error {
	end := store.RetakenPage{State: r.state}
	end.State.Done = true
	return r.inOrg(ctx, func(tx *store.Tx) error {
		var err error
		if end.State.Excluded, err = tx.LandedCount(ctx, r.pass); err != nil {
			return err
		}
		r.state = end.State
		return tx.NoteRetaken(ctx, r.pass, end)
	})
}

func (r *retaker) note(ctx context.Context, page store.RetakenPage) error {
	err := r.inOrg(ctx, func(tx *store.Tx) error { return tx.NoteRetaken(ctx, r.pass, page) })
	if err == nil {
		r.state = page.State
	}
	return err
}

// decide reads a page and decides about its resources. A dry run doesn't ask the patients' consents: what they change is written
// down as soon as it is found.
func (r *retaker) decide(ctx context.Context, after, upTo string) (decided, error) {
	page := decided{after: after, in: r.intake(time.Time{})}
	err := r.inOrg(ctx, func(tx *store.Tx) error {
		var err error
		page.landed, err = tx.Landed(ctx, r.pass, store.Retake{
			Patients: r.ask.Patients, Quarantined: r.ask.Only == RetakeQuarantined, Quarantine: r.ask.Quarantine, Path: r.ask.Path, Reason: r.ask.Reason,
		}, after, upTo, r.a.cfg.PageSize)
		return err
	})
	if err != nil {
		return page, err
	}
	for _, l := range page.landed {
		page.last = l.Item.EHRID
		if l.Item.Raw != nil {
			page.items = append(page.items, l.Item)
		}
	}
	if !r.ask.DryRun {
		page.items, err = page.in.again(ctx, page.items)
		return page, err
	}
	all := make([]*store.Item, len(page.items))
	for i := range page.items {
		all[i] = &page.items[i]
	}
	if err := page.in.read(ctx, all); err != nil {
		return page, err
	}
	for _, it := range all {
		it.Outcome = it.Mapped
	}
	return page, page.in.tie(ctx, page.items)
}

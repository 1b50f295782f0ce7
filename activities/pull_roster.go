package activities

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// patientsAtOnce is how many patients are read side by side, where the EHR hasn't taught otherwise; patientBatch is after
// how many the pass notes where it stands.
const (
	patientsAtOnce = 4
	patientBatch   = 16
)

// faultsInABatch is how many patients of a batch may fail before the type is given up: then it isn't about the patients.
const faultsInABatch = 3

// readPatients reads patient by patient: the roster, or those that were asked for. A batch that a crash cut short is read
// again. A fault that is about one patient stops only that patient, who is left as a dead letter.
func (p *puller) readPatients(ctx context.Context) (end, error) {
	cursor, err := p.cursor(ctx)
	if err != nil || cursor.Done {
		return end{done: cursor.Done}, err
	}
	for {
		if stop, e, err := p.interrupted(ctx); stop || err != nil {
			return e, err
		}
		members, err := p.members(ctx, cursor.After)
		if err != nil {
			return end{}, err
		}
		if len(members) == 0 {
			return end{done: true}, p.inOrg(ctx, func(tx *store.Tx) error { return tx.FinishType(ctx, p.pass) })
		}
		if e, err := p.batch(ctx, members); err != nil || e.wait > 0 {
			return e, err
		}
		cursor = store.Cursor{After: members[len(members)-1].ID}
		if err := p.inOrg(ctx, func(tx *store.Tx) error { return tx.MoveCursor(ctx, p.pass, cursor) }); err != nil {
			return end{}, err
		}
	}
}

// members are the next patients after the one named by after.
func (p *puller) members(ctx context.Context, after string) (members []store.Member, err error) {
	err = p.inOrg(ctx, func(tx *store.Tx) error {
		if len(p.in.Patients) == 0 {
			members, err = tx.Members(ctx, p.in.Connection, after, patientBatch)
			return err
		}
		for _, id := range slices.Sorted(slices.Values(p.in.Patients)) {
			if id <= after || len(members) == patientBatch {
				continue
			}
			m, err := tx.Member(ctx, p.in.Connection, id)
			if err != nil {
				return err
			}
			members = append(members, m)
		}
		return nil
	})
	return members, err
}

// batch reads patients side by side, but for those whose consents keep the type from being pulled.
func (p *puller) batch(ctx context.Context, members []store.Member) (end, error) {
	members, err := p.permitting(ctx, members)
	if err != nil {
		return end{}, err
	}
	var mu sync.Mutex
	var e end
	failed := 0
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.pace.Concurrency(patientsAtOnce))
	for _, m := range members {
		group.Go(func() error {
			v := &visit{puller: p, member: m, pass: p.pass, seen: map[string]bool{}}
			if p.choice.Strategy.ByPatient() {
				v.pass.Partition = m.ID
			}
			wait, err := v.read(ctx)
			mu.Lock()
			defer mu.Unlock()
			e.wait = max(e.wait, wait)
			if err == nil || ctx.Err() != nil || !aboutOnePatient(fault.KindOf(err)) {
				return err
			}
			if failed++; failed > faultsInABatch {
				return err
			}
			return v.giveUp(ctx, err)
		})
	}
	return e, group.Wait()
}

// aboutOnePatient reports whether a fault of this kind may be about the one patient that was asked for.
func aboutOnePatient(kind fault.Kind) bool {
	return kind == fault.Transient || kind == fault.Protocol || kind == fault.Data || kind == fault.NotFound || kind == fault.Expired
}

// visit reads one patient in one type.
type visit struct {
	*puller

	member store.Member
	// pass is the patient's own, where the type is read by patient; else it is the type's, and has no watermark of theirs.
	pass store.Pass
	// seen are the ids that the EHR has served.
	seen map[string]bool
	// candidate is the watermark that the read will set: the server's time on its first page.
	candidate time.Time
	// narrowed says that less was asked for than all of the patient.
	narrowed bool
	// withheld says that something was kept out because of the patient's consents, which have changed meanwhile.
	withheld bool
}

func (v *visit) read(ctx context.Context) (wait time.Duration, err error) {
	if v.in.Type == cura.Patient {
		wait, err = v.readPatient(ctx)
	} else {
		wait, err = v.search(ctx)
	}
	if wait > 0 || err != nil || v.pass.Partition == "" || v.in.part() || v.comparing || v.withheld {
		return wait, err
	}
	seen := make([]string, 0, len(v.seen))
	for id := range v.seen {
		seen = append(seen, id)
	}
	if v.candidate.IsZero() {
		v.candidate = time.Now() // no page has come that tells the server's time
	}
	var absent []store.Absence
	err = v.inOrg(ctx, func(tx *store.Tx) error {
		var err error
		absent, err = tx.FinishPatient(ctx, v.pass, v.candidate, !v.narrowed, seen)
		return err
	})
	if err != nil {
		return 0, err
	}
	failpoint.Reach(failpoint.PatientFinished)
	return v.confirm(ctx, absent)
}

// readPatient reads the Patient by id: a search leaves out those who were merged into others (DOMAIN §6).
func (v *visit) readPatient(ctx context.Context) (time.Duration, error) {
	page, wait, err := v.readOne(ctx, v.member.EHRID)
	switch {
	case wait > 0:
		return wait, nil
	case fault.Is(err, fault.NotFound) && v.comparing:
		return 0, nil
	case errors.Is(err, ehr.ErrGone) && v.known(ctx):
		return 0, v.tombstone(ctx, v.member.EHRID, cura.GoneDeleted)
	case fault.Is(err, fault.NotFound) && v.known(ctx):
		return 0, nil
	case fault.Is(err, fault.NotFound):
		return 0, fault.New("reading a roster member", fault.NotFound, "the EHR has no such patient").GivenUp(1).
			WithFix("Correct the roster: starter roster show, starter roster remove")
	case err != nil:
		return 0, err
	}
	return 0, v.take(ctx, page)
}

// known reports whether the member has been read before.
func (v *visit) known(ctx context.Context) bool {
	known := false
	err := v.inOrg(ctx, func(tx *store.Tx) error {
		heads, err := tx.Heads(ctx, v.in.Connection, v.in.Type, []string{v.member.EHRID})
		known = len(heads) > 0
		return err
	})
	return err == nil && known
}

// search makes the type's searches for the patient, one after the other.
func (v *visit) search(ctx context.Context) (time.Duration, error) {
	from := store.Cursor{Since: v.in.Since, Until: v.in.Until}
	if v.choice.Strategy == cura.StrategyRoster && v.pass.Partition != "" && !v.in.part() && !v.in.Full {
		err := v.inOrg(ctx, func(tx *store.Tx) error {
			watermark, err := tx.Watermark(ctx, v.pass)
			if watermark != nil {
				since := watermark.Add(-v.a.cfg.Overlap)
				from.Since = &since
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	if v.choice.Strategy == cura.StrategySnapshot {
		from = store.Cursor{} // the server doesn't search by _lastUpdated
	}
	v.narrowed = from.Since != nil || from.Until != nil
	for _, params := range v.rules.Slices(v.choice.NotOffered) {
		params.Set("patient", v.member.EHRID)
		wait, err := v.slice(ctx, params, from)
		if errors.Is(err, ehr.ErrRefused) && params.Has("category") {
			// Not every build of a vendor's server offers every category (DOMAIN §2): the others go on.
			v.narrowed = true
			err = v.inOrg(ctx, func(tx *store.Tx) error {
				return tx.NotOffered(ctx, v.in.Connection, v.in.Type, params.Get("category"))
			})
		}
		if wait > 0 || err != nil {
			return wait, err
		}
	}
	return 0, nil
}

// slice reads one search of the patient to its end.
func (v *visit) slice(ctx context.Context, params url.Values, from store.Cursor) (time.Duration, error) {
	for c := from; ; {
		page, wait, err := v.fetch(ctx, v.query(params, c))
		switch {
		case wait > 0:
			return wait, nil
		case fault.Is(err, fault.Expired) && c.Restarts < maxRestarts:
			c = store.Cursor{Since: from.Since, Until: from.Until, PageSize: c.PageSize, Restarts: c.Restarts + 1}
			continue
		case errors.Is(err, ehr.ErrPageTooLarge) && c.PageSize != 1:
			c = store.Cursor{Since: from.Since, Until: from.Until, PageSize: max(v.pageSize(c)/2, 1), Restarts: c.Restarts}
			continue
		case fault.Is(err, fault.Transient):
			return v.oneByOne(ctx, params, from, err)
		case err != nil:
			return 0, err
		}
		failpoint.Reach(failpoint.PageFetched)
		if c.Next == "" && page.Total != nil {
			c.Total = *page.Total
		}
		c.Rows += len(page.Entries)
		if err := v.take(ctx, page); err != nil {
			return 0, err
		}
		if c.Next = page.Next; c.Next != "" {
			continue
		}
		short, err := v.short(ctx, params, c)
		if err != nil || !short {
			return 0, err
		}
		c = store.Cursor{Since: from.Since, Until: from.Until, PageSize: c.PageSize, Restarts: c.Restarts + 1}
	}
}

// oneByOne deals with a search that the server can't give: where it lists the ids it is up, and each is read by itself.
func (v *visit) oneByOne(ctx context.Context, params url.Values, from store.Cursor, cause error) (time.Duration, error) {
	query := v.query(params, from)
	query.IDsOnly = true
	for {
		listed, err := v.client.Search(ctx, query)
		if err != nil {
			return 0, cause
		}
		v.sifting.Store(true)
		page, bad, wait, err := v.readEach(ctx, listed)
		if err != nil || wait > 0 {
			return wait, err
		}
		if err := v.take(ctx, page, bad...); err != nil {
			return 0, err
		}
		if query.Next = listed.Next; query.Next == "" {
			return 0, nil
		}
	}
}

// take takes a page of the patient, and what of it couldn't be read.
func (v *visit) take(ctx context.Context, page ehr.Page, bad ...store.Item) error {
	if v.candidate.IsZero() {
		v.candidate = page.ServerTime
	}
	items, err := v.sink.prepare(ctx, page)
	if err != nil {
		return err
	}
	for i := range items {
		v.ofAnother(&items[i])
	}
	items = append(items, bad...)
	if err := v.sink.take(ctx, v.pass, page, items, store.Advance{Keep: true}); err != nil {
		return err
	}
	for i := range items {
		v.seen[items[i].EHRID] = true
		v.withheld = v.withheld || items[i].Outcome == store.Withheld && items[i].Mapped != store.Withheld
	}
	return nil
}

// ofAnother keeps out what belongs to another patient than was asked for: the server has given away what it mustn't, and
// Cura doesn't keep it.
func (v *visit) ofAnother(it *store.Item) {
	if it.Mapped == store.Stored && it.Record.PatientEHRID != v.member.EHRID {
		it.Mapped, it.Raw = store.Withheld, nil
	}
}

// confirm asks the EHR for what two whole reads haven't brought: absence alone is no deletion (DOMAIN §2).
func (v *visit) confirm(ctx context.Context, absent []store.Absence) (time.Duration, error) {
	for _, a := range absent {
		if a.Times < absencesBeforeAsking {
			continue
		}
		page, wait, err := v.readOne(ctx, a.EHRID)
		switch {
		case wait > 0:
			return wait, nil
		case errors.Is(err, ehr.ErrGone):
			err = v.tombstone(ctx, a.EHRID, cura.GoneDeleted)
		case fault.Is(err, fault.NotFound):
			err = v.tombstone(ctx, a.EHRID, cura.GoneAbsent)
		case err == nil:
			err = v.take(ctx, page) // it is there; the search has left it out
		case aboutOnePatient(fault.KindOf(err)):
			err = nil // asked again after the next read
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// absencesBeforeAsking is how many whole reads in a row must lack a resource before the EHR is asked for it.
const absencesBeforeAsking = 2

func (p *puller) readOne(ctx context.Context, id string) (page ehr.Page, wait time.Duration, err error) {
	wait, err = p.a.attempt(ctx, p.attempts(), func() error {
		var err error
		page, err = p.client.ReadPage(ctx, p.in.Type, id)
		return err
	})
	return page, wait, err
}

func (v *visit) tombstone(ctx context.Context, id string, reason cura.GoneReason) error {
	return v.inOrg(ctx, func(tx *store.Tx) error {
		_, err := tx.Tombstone(ctx, v.pass, []string{id}, reason)
		return err
	})
}

// giveUp leaves the patient as a dead letter that holds their watermark, for the others to go on.
func (v *visit) giveUp(ctx context.Context, cause error) error {
	f, ok := errors.AsType[*fault.Error](cause)
	if v.comparing {
		return nil // what it lacks is looked at one by one
	}
	if !ok || v.pass.Partition == "" {
		return cause
	}
	return v.inOrg(ctx, func(tx *store.Tx) error {
		_, err := tx.OpenDeadLetter(ctx, store.DeadLetter{
			Connection: v.in.Connection, Type: v.in.Type, Partition: v.pass.Partition, Run: v.in.Run,
			Fault: f.Kind, Detail: f.Op + ": " + f.Detail, Attempts: max(f.Attempts, 1),
		})
		return err
	})
}

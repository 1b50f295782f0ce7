package activities

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// errReaderHasIt says that a reader of the type hasn't let go of it for as long as an activity waits.
var errReaderHasIt = errors.New("a reader has the type")

// leasePoll is how often a type is asked for that a reader has.
const leasePoll = time.Second

// maxSamples is how many resources of a type a dry run keeps for people to look at.
const maxSamples = 20

// maxNames bounds the elements and the reasons that are counted one by one.
const maxNames = 200

// take writes a page, or notes what would come of it. It waits for a reader of the type, and has the page decided again where what
// it was decided by has changed.
func (r *retaker) take(ctx context.Context, page decided) error {
	last := page.last
	for {
		var taken store.RetakenPage
		fn := func(tx *store.Tx) error {
			var err error
			if taken, err = r.judge(page, last); err != nil {
				return err
			}
			if r.ask.DryRun {
				return tx.NoteRetaken(ctx, r.pass, taken)
			}
			return tx.ApplyRetaken(ctx, r.pass, r.conn.Overrides, r.overrides.Version(), taken)
		}
		err := r.write(ctx, page.in, page.items, fn)
		switch {
		case err == nil:
			r.state = taken.State
			r.pages.Add(1)
			failpoint.Reach(failpoint.PageRetaken)
			return nil
		case errors.Is(err, store.ErrSettledMeanwhile):
			if page, err = r.decide(ctx, page.after, last); err != nil {
				return err
			}
		case fault.Is(err, fault.Busy):
			if err := r.await(ctx); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// await waits a while for the reader that has the type; one who goes ahead asks it to let go.
func (r *retaker) await(ctx context.Context) error {
	if time.Since(r.began) > r.a.cfg.ChunkTime {
		return errReaderHasIt
	}
	if !r.ask.Ahead {
		return hold(ctx, leasePoll)
	}
	if err := r.inOrg(ctx, func(tx *store.Tx) error { return tx.WantLease(ctx, r.pass) }); err != nil {
		return err
	}
	return hold(ctx, aheadPause)
}

// judge compares what is decided with what was, and tells what is to be written of it.
func (r *retaker) judge(page decided, last string) (store.RetakenPage, error) {
	taken := store.RetakenPage{After: page.after, State: r.state, Landings: make(map[string]int64, len(page.landed))}
	s := &taken.State
	s.After, s.Elements, s.Reasons = last, cloned(s.Elements), cloned(s.Reasons)
	sampled := s.Changed + s.Rejected + s.Accepted + s.InReview
	items := page.items
	for _, l := range page.landed {
		taken.Landings[l.Item.EHRID] = l.Item.Landing
		if l.Item.Raw == nil {
			s.Skipped++
			continue
		}
		it := items[0]
		items = items[1:]
		v, err := r.compare(l, &it)
		if err != nil {
			return taken, err
		}
		s.RetakeCounts = s.Plus(v.kind.Counts())
		for _, element := range v.elements {
			countOne(s.Elements, element)
		}
		if it.Outcome == store.Quarantined {
			for _, reason := range it.Reasons {
				countOne(s.Reasons, reason.Path+": "+reason.Text)
			}
		}
		switch {
		case v.write:
			taken.Items = append(taken.Items, it)
		case v.mark:
			taken.Same = append(taken.Same, it.EHRID)
		}
		if r.ask.DryRun && v.differs() && sampled < maxSamples {
			sampled++
			taken.Samples = append(taken.Samples, r.sample(l, it, v.kind))
		}
	}
	return taken, nil
}

func (r *retaker) sample(l store.Landed, it store.Item, kind store.RetakeKind) store.RemapSample {
	s := store.RemapSample{Type: r.ask.Type, Kind: kind, Reasons: l.Reasons, Landed: l}
	if it.Outcome == store.Quarantined {
		s.Reasons = it.Reasons
	}
	return s
}

func cloned(counts map[string]int) map[string]int {
	if counts == nil {
		return map[string]int{}
	}
	return maps.Clone(counts)
}

func countOne(counts map[string]int, name string) {
	if _, known := counts[name]; known || len(counts) < maxNames {
		counts[name]++
	}
}

// verdict is what becomes of one resource.
type verdict struct {
	kind store.RetakeKind
	// elements are those in which its record differs.
	elements []string
	// write: it is written. mark: its row alone says by which mapping version it is made.
	write, mark bool
}

func (v verdict) differs() bool {
	switch v.kind {
	case store.RetakeChanged, store.RetakeRejected, store.RetakeAccepted, store.RetakeInReview:
		return true
	case store.RetakeSame, store.RetakeExcluded, store.RetakeWithheld, store.RetakeSkipped:
	}
	return false
}

// compare tells what becomes of one resource. What stays as it is isn't written: its review keeps its place, its quarantine entry
// its id.
func (r *retaker) compare(l store.Landed, it *store.Item) (verdict, error) {
	switch before, now := l.Outcome, it.Outcome; {
	case now == store.Withheld:
		return verdict{kind: store.RetakeWithheld}, nil
	case before == store.Stored && now == store.Stored:
		return r.compareRecords(l, it)
	case before == now:
		moved := it.WaitsForPatient != l.WaitsForPatient || now == store.Quarantined && !slices.Equal(it.Reasons, l.Reasons)
		return verdict{kind: store.RetakeSame, write: moved && now == store.Quarantined}, nil
	case now == store.Quarantined:
		return verdict{kind: store.RetakeRejected, write: true}, nil
	case before == store.Stored:
		// A person isn't asked again about a version that Cura has changed since.
		asked := it.ReviewKind == cura.ReviewConflict && it.Shown != nil && it.Shown.Landing == it.Landing
		if asked {
			return verdict{kind: store.RetakeSame}, nil
		}
		return verdict{kind: store.RetakeInReview, write: true}, nil
	}
	return verdict{kind: store.RetakeAccepted, write: true}, nil
}

// compareRecords is compare for what had a record, and has one again.
func (r *retaker) compareRecords(l store.Landed, it *store.Item) (verdict, error) {
	moves := it.Move != nil || it.Relink
	if l.Row == nil {
		// Nothing is shown of it: of a patient whose profile shows something else, or of what Cura has written to the EHR itself.
		shown := it.Record.Profile != nil && !it.Keep && it.ReplacedBy == ""
		if shown {
			return verdict{kind: store.RetakeChanged, elements: []string{string(r.ask.Type)}, write: true}, nil
		}
		return verdict{kind: store.RetakeSame, write: moves || it.Record.Profile != nil}, nil
	}
	record, err := store.RecordJSON(it.Record)
	if err != nil {
		return verdict{}, err
	}
	changes, err := store.RecordChanges(r.ask.Type, l.Row.Record, record)
	if err != nil {
		return verdict{}, err
	}
	v := verdict{kind: store.RetakeSame}
	for _, c := range changes {
		if !slices.Contains(v.elements, c.Path) {
			v.elements = append(v.elements, c.Path)
		}
	}
	if l.Row.Profile != it.Profile && r.ask.Type != cura.Consent { // a consent counts where it was logged, or where a move has taken it
		v.elements = append(v.elements, string(r.ask.Type)+".patient")
	}
	if l.Row.EnteredInError != it.Record.EnteredInError && it.Record.Profile == nil {
		v.elements = append(v.elements, string(r.ask.Type)+".entered_in_error")
	}
	if len(v.elements) > 0 {
		v.kind, v.write = store.RetakeChanged, true
		if r.ask.Type == cura.Consent {
			it.Landing = 0 // the log of consents only grows: what was logged before stays, and this version lands once more
		}
		return v, nil
	}
	// Another release may look the same record up by something else.
	other := release(l.Row.MappingVersion) != release(r.overrides.Version())
	v.write = moves || other && r.ask.Type != cura.Consent
	v.mark = l.Row.MappingVersion != r.overrides.Version()
	return v, nil
}

// release is the part of a mapping version that isn't the site's.
func release(version string) string {
	own, _, _ := strings.Cut(version, "+")
	return own
}

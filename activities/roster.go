package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// RosterResult is what looking after a roster came to.
type RosterResult struct {
	// Members counts whom the connection reads now.
	Members int `json:"members"`
	// Added and Left count who joined and who left during this call.
	Added int `json:"added"`
	Left  int `json:"left"`
	// NotFound, Ambiguous and Pending count the enrolments that stand so now; starter roster show tells why.
	NotFound  int `json:"not_found"`
	Ambiguous int `json:"ambiguous"`
	Pending   int `json:"pending"`
	// More: the call was full; call again for the rest.
	More bool `json:"more,omitempty"`
}

// The bounds of one call.
const (
	// askedPerCall is how many people one call asks the EHR for.
	askedPerCall = 1000
	// enrolledPerCall is how many profiles of Cura become enrolments in one call.
	enrolledPerCall = 10_000
	// askAttempts is how often the EHR is asked for one person before that one is left for later: less often than makes it
	// count as down (store.DownAfter).
	askAttempts = 4
	// uselessInARow is how many useless answers in a row are the server's fault, not that of the people asked for.
	uselessInARow = 3
)

// RefreshRoster brings the roster of a connection up to date: whom Cura knows is enrolled, who is enrolled is asked for
// and becomes a member when exactly one patient of the EHR is that person for certain, and the members that a Group
// feeds follow it. Each answer is committed by itself, so a call that is cut short goes on where it stopped. One person
// whom the EHR can't be asked for stops nobody else.
func (a *Activities) RefreshRoster(ctx context.Context, in Target) (RosterResult, error) {
	result, err := a.refreshRoster(ctx, in)
	return result, temporalError(ctx, err)
}

func (a *Activities) refreshRoster(ctx context.Context, in Target) (RosterResult, error) {
	conn, open, err := a.connect(ctx, in)
	if err != nil {
		return RosterResult{}, err
	}
	overrides, err := a.overrides(ctx, conn)
	if err != nil {
		return RosterResult{}, err
	}
	r := &roster{a: a, in: in, conn: conn.Connection, overrides: overrides, ehr: open.client, began: time.Now()}
	defer heartbeat(ctx, func() any { return r.asked.Load() })()
	if conn.RosterSource == cura.RosterEnrolment {
		if err := r.enrol(ctx); err != nil {
			return RosterResult{}, err
		}
	}
	if err := r.ask(ctx); err != nil {
		return RosterResult{}, err
	}
	if conn.RosterSource == cura.RosterGroup && !r.more {
		if err := r.followGroup(ctx); err != nil {
			return RosterResult{}, err
		}
	}
	return r.result(ctx)
}

// roster looks after one connection's roster for one call.
type roster struct {
	a     *Activities
	in    Target
	conn  cura.Connection
	ehr   *ehr.Client
	began time.Time
	// overrides are what the EHR's answers are mapped with; nil: the connection has none.
	overrides *mappings.Overrides

	asked       atomic.Int64
	useless     int // answers in a row
	added, left int
	more        bool
}

func (r *roster) inOrg(ctx context.Context, fn func(*store.Tx) error) error {
	return r.a.store.InOrg(ctx, r.in.Org, fn)
}

// enrol has Cura's own records feed the roster: patients whom the connection is linked to join, and other profiles that
// carry its match identifier become enrolments.
func (r *roster) enrol(ctx context.Context) error {
	return r.inOrg(ctx, func(tx *store.Tx) error {
		joined, err := tx.JoinLinked(ctx, r.in.Connection)
		if err != nil {
			return err
		}
		r.added += joined
		people, err := tx.ProfilesToEnrol(ctx, r.in.Connection, r.conn.Match, enrolledPerCall)
		if err != nil {
			return err
		}
		full := len(people) == enrolledPerCall
		people = slices.DeleteFunc(people, func(e store.Enrolment) bool { return !usable(e.Value, r.conn.Match) })
		if len(people) == 0 {
			return nil
		}
		r.more = full
		_, err = tx.Enrol(ctx, r.in.Connection, people, audit.Worker)
		return err
	})
}

// usable reports whether people may be matched by a value of the strategy's system: a placeholder says nothing.
func usable(value string, strategy cura.MatchStrategy) bool {
	return len(match.Keys(&cura.Profile{Identifiers: []cura.Identifier{{System: strategy.System, Value: value}}}, strategy)) > 0
}

// ask asks the EHR for those who are due, until nobody is or the call is full.
func (r *roster) ask(ctx context.Context) error {
	const batch = 50
	for {
		var due []store.Enrolment
		err := r.inOrg(ctx, func(tx *store.Tx) error {
			var err error
			due, err = tx.DueEnrolments(ctx, r.in.Connection, batch)
			return err
		})
		if err != nil || len(due) == 0 {
			return err
		}
		for _, e := range due {
			if r.full() || stopping(ctx) {
				r.more = true
				return nil
			}
			settlement, err := r.askFor(ctx, e)
			if err != nil {
				return err
			}
			err = r.inOrg(ctx, func(tx *store.Tx) error {
				joined, err := tx.SettleEnrolment(ctx, r.in.Connection, e.ID, settlement)
				if joined {
					r.added++
				}
				return err
			})
			if err != nil {
				return err
			}
			r.asked.Add(1)
		}
	}
}

// full reports whether the call has asked for as many as one may, or for as long; at least for one, so that calls come to
// an end.
func (r *roster) full() bool {
	asked := r.asked.Load()
	return asked >= askedPerCall || (asked > 0 && time.Since(r.began) >= r.a.cfg.ChunkTime)
}

// askFor asks the EHR for one person. A useless answer leaves them for later; what isn't about them is an error.
func (r *roster) askFor(ctx context.Context, e store.Enrolment) (store.Settlement, error) {
	person := ehr.Person{
		System: r.conn.Match.System, Value: e.Value, Family: e.Family, Given: e.Given, BirthDate: e.BirthDate, Gender: e.Gender,
	}
	var entries []fhir.Entry
	wait, err := r.a.attempt(ctx, min(askAttempts, r.a.cfg.RetryAttempts), func() error {
		var err error
		entries, err = r.ehr.FindPatients(ctx, person)
		return err
	})
	switch {
	case wait > 0:
		return store.Settlement{}, fault.New("finding a patient", fault.Throttled, "the EHR asks for a pause").After(wait)
	case err == nil:
		r.useless = 0
		return verify(e, r.conn.Match, r.overrides, entries), nil
	case !aboutOne(err):
		return store.Settlement{}, rosterFault(err)
	}
	if r.useless++; r.useless == uselessInARow {
		return store.Settlement{}, rosterFault(err)
	}
	return store.Settlement{
		State: store.EnrolmentPending, Reason: "the EHR's answer was of no use (" + string(fault.KindOf(err)) + "); it is asked again",
	}, nil
}

// aboutOne reports whether a fault can be that of the person who was asked for, rather than of the connection.
func aboutOne(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.Data || kind == fault.NotFound || kind == fault.Transient || kind == fault.Protocol || kind == fault.Unsupported ||
		errors.Is(err, ehr.ErrRefused)
}

// rosterFault makes a setting to be mended of what would otherwise switch a resource type off: without its roster a
// connection reads nobody, and says nothing.
func rosterFault(err error) error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || (f.Kind != fault.Scope && f.Kind != fault.Unsupported && !errors.Is(err, ehr.ErrRefused)) {
		return err
	}
	return fault.Wrap("looking after the roster", fault.Config, f.Detail, err).
		WithFix("Have the hospital grant the client what the roster needs, or feed it otherwise: starter roster upload, starter connection edit --roster-source list")
}

// verify says which of the patients that the EHR gave is the person: the one that carries the very identifier, and whose
// birth date or family name agrees. Servers answer with near matches too; nobody is taken for somebody by those.
func verify(e store.Enrolment, strategy cura.MatchStrategy, overrides *mappings.Overrides, entries []fhir.Entry) store.Settlement {
	person := match.Candidate{BirthDate: e.BirthDate, Family: e.Family, Given: e.Given}
	var found []string
	var doubts []string
	near, unreadable := 0, 0
	seen := map[string]bool{}
	for _, entry := range entries {
		if entry.Type != string(cura.Patient) || seen[entry.ID] {
			continue
		}
		seen[entry.ID] = true
		record, err := mappings.MapWith(entry.Resource, overrides)
		if err != nil || record.Profile == nil || !fhir.IsID(entry.ID) {
			unreadable++
			continue
		}
		keys := match.KeysAt(record.Profile, strategy, time.Now())
		carries := slices.ContainsFunc(keys, func(key string) bool { return slices.Contains(match.Spellings(strategy.System, key), e.Value) })
		if !carries || merged(record.Profile) {
			near++
			continue
		}
		if d := match.Decide(record.Profile, keys, strategy, []match.Candidate{person}); d.Outcome == match.Matched {
			found = append(found, entry.ID)
		} else {
			doubts = append(doubts, d.Reason)
		}
	}
	switch carriers := len(found) + len(doubts); {
	case carriers > 1:
		return store.Settlement{State: store.EnrolmentAmbiguous, Reason: fmt.Sprintf("%d patients of the EHR carry the identifier", carriers)}
	case len(doubts) == 1:
		return store.Settlement{State: store.EnrolmentAmbiguous, Reason: doubts[0]}
	case len(found) == 1:
		return store.Settlement{State: store.EnrolmentFound, EHRID: found[0]}
	}
	reason := "no patient of the EHR carries the identifier"
	if near > 0 {
		reason += fmt.Sprintf("; it gave %d that are similar or merged into another", near)
	}
	if unreadable > 0 {
		reason += fmt.Sprintf("; it gave %d that can't be read", unreadable)
	}
	return store.Settlement{State: store.EnrolmentNotFound, Reason: reason}
}

// merged reports whether the EHR has merged a patient into another, who is the one to read.
func merged(p *cura.Profile) bool {
	return slices.ContainsFunc(p.Links, func(l cura.ProfileLink) bool { return l.Type == "replaced-by" })
}

// followGroup brings the members that the Group feeds in step with it. A Group that is empty all at once is more often a
// broken one than a hospital without patients: nobody leaves then.
func (r *roster) followGroup(ctx context.Context) error {
	var ids []string
	wait, err := r.a.attempt(ctx, r.a.cfg.RetryAttempts, func() error {
		var err error
		ids, err = r.ehr.Group(ctx, r.conn.GroupID)
		return err
	})
	if wait > 0 {
		return fault.New("reading the Group", fault.Throttled, "the EHR asks for a pause").After(wait)
	}
	if err != nil {
		return rosterFault(err)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !fhir.IsID(id) })
	return r.inOrg(ctx, func(tx *store.Tx) error {
		counts, err := tx.RosterCounts(ctx, r.in.Connection)
		if err != nil {
			return err
		}
		if fed := counts.Members[cura.RosterGroup]; len(ids) == 0 && fed > 0 {
			return fault.Newf("reading the Group", fault.Config, "it lists nobody, and %d members of the roster are there because of it; nobody was taken off", fed).
				WithFix("Ask the hospital about the Group; if it is meant to be empty: starter connection edit --roster-source list, and starter roster remove")
		}
		added, left, err := tx.FollowGroup(ctx, r.in.Connection, ids)
		r.added, r.left = r.added+added, r.left+left
		return err
	})
}

// result counts how the roster stands.
func (r *roster) result(ctx context.Context) (RosterResult, error) {
	result := RosterResult{Added: r.added, Left: r.left, More: r.more}
	err := r.inOrg(ctx, func(tx *store.Tx) error {
		counts, err := tx.RosterCounts(ctx, r.in.Connection)
		result.Members = counts.Active()
		result.NotFound = counts.Enrolments[store.EnrolmentNotFound]
		result.Ambiguous = counts.Enrolments[store.EnrolmentAmbiguous]
		result.Pending = counts.Enrolments[store.EnrolmentPending]
		return err
	})
	return result, err
}

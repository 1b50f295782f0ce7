package activities

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
)

// matchPatients ties the patients of a page to profiles: those linked before keep their link, unless the EHR has merged them or a
// person has decided otherwise; the others are matched by the connection's strategy with the live org's profiles, and with those
// made earlier on the same page. Then it is decided which version their profiles show.
func (in *intake) matchPatients(ctx context.Context, items []store.Item) error {
	m := matching{
		in: in, keys: map[string][]string{}, found: map[string][]match.Candidate{}, taken: map[cura.ProfileID]string{},
		fresh: map[cura.ProfileID]*cura.Profile{},
	}
	now := time.Now()
	var ids, others, values []string
	for _, it := range items {
		if it.Outcome != store.Stored {
			continue
		}
		ids = append(ids, it.EHRID)
		if other := in.replacedBy(&it); other != "" {
			others = append(others, other)
		}
		m.keys[it.EHRID] = match.KeysAt(it.Record.Profile, in.strategy, now)
		values = append(values, m.spellings(it.EHRID)...)
	}
	if len(ids) == 0 {
		return nil
	}
	err := in.a.store.InOrg(ctx, in.target.Org, func(tx *store.Tx) error {
		var err error
		if m.linked, err = tx.Patients(ctx, in.pass.Connection, append(others, ids...)); err != nil {
			return err
		}
		m.decided, err = tx.Decided(ctx, in.pass.Connection, ids)
		return err
	})
	if err != nil {
		return err
	}
	if err := m.look(ctx, values); err != nil {
		return err
	}
	in.decisions = map[string]match.Decision{}
	var merged []*store.Item
	for i := range items {
		it := &items[i]
		switch link := m.linked[it.EHRID]; {
		case it.Outcome != store.Stored:
		case link.Profile != "":
			in.decisions[it.EHRID] = match.Decision{Outcome: match.Matched, Profile: link.Profile, Reason: "linked before"}
			m.follow(it, link)
		case m.decideMatch(it):
		case in.replacedBy(it) != "" && in.live == in.target: // a pilot reads few patients, and seldom both
			merged = append(merged, it)
		default:
			m.matchPatient(it)
		}
	}
	for _, it := range merged { // when those into whom they were merged have their profiles
		if err := m.join(ctx, it, in.replacedBy(it)); err != nil {
			return err
		}
	}
	if err := m.stillFree(ctx, items); err != nil {
		return err
	}
	return m.show(ctx, items)
}

// matching is the matching of one page's patients.
type matching struct {
	in *intake
	// keys are the values that each patient may be matched by, by EHR id.
	keys map[string][]string
	// found are the profiles that carry a value.
	found map[string][]match.Candidate
	// taken are the profiles that patients of this very page have been tied to, with their EHR ids.
	taken map[cura.ProfileID]string
	// linked are the links of the page's patients, and of those into whom they were merged, by EHR id.
	linked map[string]store.LinkState
	// fresh are the versions of the profiles that patients of this very page have been tied to.
	fresh map[cura.ProfileID]*cura.Profile
	// decided is what a person has decided last about each patient.
	decided map[string][]store.Decided
}

// ask puts an item before a person.
func ask(it *store.Item, kind cura.ReviewKind, reason string, candidates ...cura.ProfileID) {
	it.Outcome, it.ReviewKind, it.ReviewReason, it.Candidates = store.InReview, kind, reason, candidates
	it.Profile, it.MatchedBy, it.MatchSystems, it.MatchKeys = "", "", nil, nil
}

// decision is what a person has decided about this very version, asked so.
func (m *matching) decision(it *store.Item, kind cura.ReviewKind) (store.Decided, bool) {
	for _, d := range m.decided[it.EHRID] {
		if d.Kind == kind && bytes.Equal(d.Hash, it.Hash[:]) {
			return d, true
		}
	}
	return store.Decided{}, false
}

// spellings are all the values under which a profile may carry one of the patient's keys.
func (m *matching) spellings(patient string) []string {
	var all []string
	for _, key := range m.keys[patient] {
		all = append(all, match.Spellings(m.in.strategy.System, key)...)
	}
	return all
}

// look finds the live org's profiles that carry one of values, under each name of the strategy's system.
func (m *matching) look(ctx context.Context, values []string) error {
	if len(values) == 0 {
		return nil
	}
	return m.in.a.store.InOrg(ctx, m.in.live.Org, func(tx *store.Tx) error {
		for _, system := range match.Systems(m.in.strategy.System) {
			found, err := tx.Candidates(ctx, m.in.live.Connection, cura.MatchStrategy{By: m.in.strategy.By, System: system}, values)
			if err != nil {
				return err
			}
			for value, candidates := range found {
				m.found[value] = append(m.found[value], candidates...)
			}
		}
		return nil
	})
}

// decideMatch does what a person has decided about a patient without a link, and reports whether one has.
func (m *matching) decideMatch(it *store.Item) bool {
	d, decided := m.decision(it, cura.ReviewMatch)
	if !decided {
		return false
	}
	it.Decided = append(it.Decided, d.Review)
	if d.Decision == cura.DecideNew {
		// Whoever is somebody new wasn't merged into anybody, whatever the hospital says.
		it.Profile, it.MatchedBy = cura.ProfileID(uuid.NewString()), "new"
		m.taken[it.Profile] = it.EHRID
		return true
	}
	it.Profile, it.MatchedBy = d.Chosen, "review"
	if other := m.in.replacedBy(it); m.linked[other].Profile == d.Chosen {
		it.ReplacedBy = other
	}
	m.taken[it.Profile] = it.EHRID
	return true
}

// matchPatient decides about a patient without a link, and has those who come later on the page find the profile taken.
func (m *matching) matchPatient(it *store.Item) {
	in, keys := m.in, m.keys[it.EHRID]
	candidates := m.candidates(it.EHRID)
	d := match.Decide(it.Record.Profile, keys, in.strategy, candidates)
	in.decisions[it.EHRID] = d
	switch d.Outcome {
	case match.Ambiguous:
		ask(it, cura.ReviewMatch, d.Reason, d.Candidates...)
		return
	case match.Matched:
		it.Profile, it.MatchedBy = d.Profile, string(in.strategy.By)
	case match.New:
		it.Profile, it.MatchedBy = cura.ProfileID(uuid.NewString()), "new"
		it.MatchSystems, it.MatchKeys = match.Systems(in.strategy.System), m.spellings(it.EHRID)
		for _, value := range it.MatchKeys {
			m.found[value] = append(m.found[value], match.Candidate{Profile: it.Profile})
		}
	}
	m.taken[it.Profile] = it.EHRID
	if link := m.linked[it.EHRID]; link.Profile == "" {
		link.Profile = it.Profile
		m.linked[it.EHRID], m.fresh[it.Profile] = link, it.Record.Profile
	}
}

// stillFree asks again about patients for whom a person has decided on a profile that another patient of the connection, but for
// the one into whom they were merged, has been linked to since.
func (m *matching) stillFree(ctx context.Context, items []store.Item) error {
	for i := range items {
		it := &items[i]
		split := it.Move != nil && !it.Move.New && it.ReplacedBy == ""
		if it.Outcome != store.Stored || it.MatchedBy != "review" && !split {
			continue
		}
		var links []store.Link
		err := m.in.a.store.InOrg(ctx, m.in.target.Org, func(tx *store.Tx) error {
			var err error
			links, err = tx.LinksOf(ctx, it.Profile)
			return err
		})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(links, func(l store.Link) bool {
			return l.Connection == m.in.pass.Connection && l.EHRID != it.EHRID && l.EHRID != it.ReplacedBy
		}) {
			askAgain(it, "another patient of this connection has been linked to the profile that was decided for")
		}
	}
	return nil
}

// askAgain asks once more about a profile that was decided for, and can't be any more.
func askAgain(it *store.Item, reason string) {
	kind, candidates := cura.ReviewMatch, []cura.ProfileID{it.Profile}
	if it.Move != nil {
		kind, candidates = cura.ReviewSplit, []cura.ProfileID{it.Profile, it.Move.From}
	}
	it.Decided, it.ReplacedBy, it.Relink, it.Move = nil, "", false, nil
	ask(it, kind, reason, candidates...)
}

// candidates are the profiles that carry one of a patient's keys, each once.
func (m *matching) candidates(patient string) []match.Candidate {
	var all []match.Candidate
	for _, value := range m.spellings(patient) {
		for _, c := range m.found[value] {
			if slices.ContainsFunc(all, func(known match.Candidate) bool { return known.Profile == c.Profile }) {
				continue
			}
			if c.TakenBy == patient {
				c.TakenBy = "" // the patient's own link, seen from a pilot
			}
			if other, ok := m.taken[c.Profile]; ok {
				c.TakenBy = other
			}
			all = append(all, c)
		}
	}
	return all
}

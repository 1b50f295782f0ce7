package activities

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
)

// matchPatients ties the patients of a page to profiles: those linked before keep their link, the others are matched by
// the connection's strategy with the live org's profiles, and with those made earlier on the same page.
func (in *intake) matchPatients(ctx context.Context, items []store.Item) error {
	m := matching{in: in, keys: map[string][]string{}, found: map[string][]match.Candidate{}, taken: map[cura.ProfileID]string{}}
	now := time.Now()
	var ids, values []string
	for _, it := range items {
		if it.Outcome != store.Stored {
			continue
		}
		ids = append(ids, it.EHRID)
		m.keys[it.EHRID] = match.KeysAt(it.Record.Profile, in.strategy, now)
		values = append(values, m.spellings(it.EHRID)...)
	}
	if len(ids) == 0 {
		return nil
	}
	linked, err := in.patients(ctx, ids)
	if err != nil {
		return err
	}
	if err := m.look(ctx, values); err != nil {
		return err
	}
	in.decisions = map[string]match.Decision{}
	for i := range items {
		it := &items[i]
		if it.Outcome != store.Stored {
			continue
		}
		if profile := linked[it.EHRID].Profile; profile != "" {
			it.Profile = profile
			in.decisions[it.EHRID] = match.Decision{Outcome: match.Matched, Profile: profile, Reason: "linked before"}
			continue
		}
		m.matchPatient(it)
	}
	return nil
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

// matchPatient decides about one patient, and has those who come later on the page find the profile taken.
func (m *matching) matchPatient(it *store.Item) {
	in, keys := m.in, m.keys[it.EHRID]
	candidates := m.candidates(it.EHRID)
	d := match.Decide(it.Record.Profile, keys, in.strategy, candidates)
	if d.Outcome == match.Matched && tied(it, candidates[0]) {
		d = match.Decision{Outcome: match.Ambiguous, Candidates: d.Candidates, Reason: "the profile shows another source's version, and neither is the more recent"}
	}
	in.decisions[it.EHRID] = d
	switch d.Outcome {
	case match.Ambiguous:
		it.Outcome, it.ReviewReason, it.Candidates = store.InReview, d.Reason, d.Candidates
		return
	case match.Matched:
		it.Profile, it.MatchedBy = d.Profile, string(in.strategy.By)
	case match.New:
		it.Profile, it.MatchedBy = cura.ProfileID(uuid.NewString()), "new"
		it.MatchSystem, it.MatchKeys = in.strategy.System, m.spellings(it.EHRID)
		for _, value := range it.MatchKeys {
			m.found[value] = append(m.found[value], match.Candidate{Profile: it.Profile})
		}
	}
	m.taken[it.Profile] = it.EHRID
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

// tied reports whether a profile shows another patient's version and it can't be told which of the two is newer.
func tied(it *store.Item, c match.Candidate) bool {
	if c.SourceConnection == "" || c.SourceEHRID == it.EHRID {
		return false
	}
	return it.LastUpdated == nil || c.LastUpdated == nil || it.LastUpdated.Equal(*c.LastUpdated)
}

package activities

import (
	"context"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
)

// precedence says which of two versions is shown.
type precedence int

const (
	// shows: the version at hand.
	shows precedence = iota
	// keeps: the one that the profile shows.
	keeps
	// ties: it can't be told.
	ties
)

// show decides which of the page's versions their profiles show from now on. The most recent wins: the version of the patient
// whose version is shown already (of two with the same time the one that was fetched later; older ones have been left out by
// now), else the one with the later lastUpdated, against that of another patient's version or the time at which Cura itself
// changed the profile. A Patient has no clinical date to go by then. Equal or missing times of versions that say different
// things are for a person.
func (m *matching) show(ctx context.Context, items []store.Item) error {
	compared := func(it *store.Item) bool {
		fresh := it.MatchedBy == "new" || it.Move != nil && it.Move.New
		return it.Outcome == store.Stored && it.ReplacedBy == "" && !it.Keep && !fresh
	}
	var profiles []cura.ProfileID
	for i := range items {
		if compared(&items[i]) {
			profiles = append(profiles, items[i].Profile)
		}
	}
	if len(profiles) == 0 {
		return nil
	}
	var shown map[cura.ProfileID]store.Shown
	err := m.in.a.store.InOrg(ctx, m.in.live.Org, func(tx *store.Tx) error {
		var err error
		shown, err = tx.Shown(ctx, profiles)
		return err
	})
	if err != nil {
		return err
	}
	var tied []*store.Item
	profiles = nil
	for i := range items {
		it := &items[i]
		if !compared(it) {
			continue
		}
		now, ok := shown[it.Profile]
		if !ok {
			continue // a pilot's own
		}
		if now.MergedInto != "" && it.Move == nil {
			askAgain(it, "the profile that was decided for has been merged into another")
			continue
		}
		it.Shown = &now
		switch m.in.precedence(it, now) {
		case shows:
		case keeps:
			it.Keep = true
		case ties:
			tied, profiles = append(tied, it), append(profiles, it.Profile)
		}
	}
	if len(tied) == 0 {
		return nil
	}
	records, err := m.profiles(ctx, profiles)
	if err != nil {
		return err
	}
	for _, it := range tied {
		m.untie(it, records[it.Profile])
	}
	return nil
}

// precedence tells which is shown: an item's version, or the one that its profile shows.
func (in *intake) precedence(it *store.Item, now store.Shown) precedence {
	own := now.EHRID == it.EHRID && (now.Connection == in.pass.Connection || now.Connection == in.live.Connection)
	at := now.LastUpdated
	switch {
	case now.ChangedAt != nil && it.Landing == now.Landing && it.Landing != 0:
		return keeps // the very version that Cura has changed
	case !now.Live:
		return shows // whoever is shown has left, and what Cura has changed was of theirs
	case now.ChangedAt != nil:
		at = now.ChangedAt
	case own:
		return shows
	}
	switch {
	case it.LastUpdated == nil || at == nil || it.LastUpdated.Equal(*at):
		return ties
	case it.LastUpdated.After(*at):
		return shows
	}
	return keeps
}

// untie decides about a version of which can't be told whether it is the more recent one: it doesn't matter where both say the
// same, and otherwise a person says.
func (m *matching) untie(it *store.Item, record *cura.Profile) {
	if match.SameContent(it.Record.Profile, record) {
		it.Keep = true
		return
	}
	if d, ok := m.decision(it, cura.ReviewConflict); ok {
		it.Decided, it.Keep = append(it.Decided, d.Review), d.Decision == cura.KeepCura
		return
	}
	reason := "the profile shows another source's version, and neither is the more recent"
	if it.Shown.ChangedAt != nil {
		reason = "Cura has changed the profile, and it can't be told whether before or after the hospital"
	}
	profile := it.Profile
	ask(it, cura.ReviewConflict, reason, profile)
	m.in.decisions[it.EHRID] = match.Decision{Outcome: match.Ambiguous, Candidates: it.Candidates, Reason: reason}
}

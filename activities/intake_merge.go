package activities

import (
	"context"

	"github.com/google/uuid"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
)

// This file follows the merges of an EHR, and the taking back of them. An EHR that merges two patients goes on with the one, and
// says of the other by which it was replaced (R4 Patient.link). Two profiles of Cura's are never made one by a machine: where
// both patients have one, a person decides, and until then both stay as they are.

// replacedBy is the EHR id of the patient into whom a patient was merged; empty: they weren't.
func (in *intake) replacedBy(it *store.Item) string {
	for _, link := range it.Record.Profile.Links {
		if link.Type == "replaced-by" && in.ours(link.PatientBase) && link.PatientEHRID != it.EHRID {
			return link.PatientEHRID
		}
	}
	return ""
}

// follow decides about a patient who is linked.
func (m *matching) follow(it *store.Item, link store.LinkState) {
	other := m.in.replacedBy(it)
	it.Profile = link.Profile
	if d, ok := m.decision(it, cura.ReviewSplit); ok {
		m.split(it, link, d)
		return
	}
	switch other {
	case link.ReplacedBy: // as it was, merged or not
		it.ReplacedBy = other
	case "":
		// The EHR has taken it back. Whose the patient was before is the first that is offered.
		candidates := []cura.ProfileID{link.Profile}
		if link.MovedFrom != "" {
			candidates = []cura.ProfileID{link.MovedFrom, link.Profile}
		}
		ask(it, cura.ReviewSplit, "the hospital has taken back the merge of the patient into another", candidates...)
	default:
		m.merge(it, link, other)
	}
}

// merge decides about a linked patient whom the EHR has merged into other.
func (m *matching) merge(it *store.Item, link store.LinkState, other string) {
	into := m.linked[other].Profile
	d, decided := m.decision(it, cura.ReviewMerge)
	switch {
	case decided && d.Decision == cura.KeepCura:
		it.Decided, it.Keep, it.ReplacedBy = append(it.Decided, d.Review), true, link.ReplacedBy
	case into == "":
		ask(it, cura.ReviewMerge, "the hospital has merged the patient into one whom it hasn't served yet", link.Profile)
		it.WaitsForPatient = other
	case into == link.Profile:
		it.ReplacedBy, it.Relink = other, true
	case decided && d.Chosen == into:
		it.Decided, it.ReplacedBy = append(it.Decided, d.Review), other
		it.Profile, it.Move = into, &store.LinkMove{From: link.Profile, By: d.By}
	default:
		ask(it, cura.ReviewMerge, "the hospital has merged the patient into another, who has a profile too", link.Profile, into)
	}
}

// split does what a person has decided about a merge that was taken back, by the EHR or by a person.
func (m *matching) split(it *store.Item, link store.LinkState, d store.Decided) {
	it.Decided = append(it.Decided, d.Review)
	other := m.in.replacedBy(it)
	switch d.Decision {
	case cura.DecideLink, cura.DecideNew:
		if d.Applied {
			it.ReplacedBy = link.ReplacedBy
			return
		}
		to := d.Chosen
		if d.Decision == cura.DecideNew {
			to = cura.ProfileID(uuid.NewString())
		} else if other != "" && m.linked[other].Profile == to {
			it.ReplacedBy = other // it is the merge, after all
		}
		if to == link.Profile {
			it.Relink = it.ReplacedBy != link.ReplacedBy
			return
		}
		it.Profile, it.Move = to, &store.LinkMove{From: link.Profile, New: d.Decision == cura.DecideNew, By: d.By}
	case cura.KeepCura, cura.KeepEHR, cura.DecideMerge:
		// The patient stays where they are; whoever isn't merged any more is one of two there.
		it.Keep = true
		if other == link.ReplacedBy {
			it.ReplacedBy = other
		}
		it.Relink = it.ReplacedBy != link.ReplacedBy
	}
}

// join decides about a patient who has no link, and was merged into a survivor: nobody's profile is lost if they get the same one.
func (m *matching) join(ctx context.Context, it *store.Item, survivor string) error {
	into := m.linked[survivor].Profile
	if into == "" {
		it.Outcome, it.WaitsForPatient = store.Quarantined, survivor
		it.Reasons = []store.Reason{{Path: "Patient.link.other", Text: "refers to a patient whom the EHR hasn't served, and into whom this one was merged"}}
		m.in.decisions[it.EHRID] = match.Decision{Outcome: match.Ambiguous, Reason: "the patient was merged into one whom the EHR hasn't served"}
		return nil
	}
	other, fresh := m.fresh[into]
	if !fresh {
		shown, err := m.profiles(ctx, []cura.ProfileID{into})
		if err != nil {
			return err
		}
		other = shown[into]
	}
	switch doubt, compared := match.Agree(it.Record.Profile, other); {
	case doubt != "":
		ask(it, cura.ReviewMatch, "the hospital has merged the patient into another, and they aren't alike: "+doubt, into)
	case !compared:
		ask(it, cura.ReviewMatch, "the hospital has merged the patient into another, and there is nothing to compare the two by", into)
	default:
		it.Profile, it.MatchedBy, it.ReplacedBy = into, "merge", survivor
		m.in.decisions[it.EHRID] = match.Decision{Outcome: match.Matched, Profile: into, Reason: "merged into a patient who is linked"}
		return nil
	}
	m.in.decisions[it.EHRID] = match.Decision{Outcome: match.Ambiguous, Candidates: it.Candidates, Reason: it.ReviewReason}
	return nil
}

// profiles reads the records of profiles as they are shown.
func (m *matching) profiles(ctx context.Context, ids []cura.ProfileID) (map[cura.ProfileID]*cura.Profile, error) {
	shown := make(map[cura.ProfileID]*cura.Profile, len(ids))
	err := m.in.a.store.InOrg(ctx, m.in.live.Org, func(tx *store.Tx) error {
		states, err := tx.ProfileStates(ctx, ids)
		for _, s := range states {
			shown[s.ID] = s.Record
		}
		return err
	})
	return shown, err
}

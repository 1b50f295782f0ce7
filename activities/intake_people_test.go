package activities_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/store"
)

func (p *pages) onTwin(t *testing.T) *pages {
	t.Helper()
	twin := p.h.twin(t)
	other := &pages{p.h, store.Pass{Connection: twin.Connection, Type: cura.Patient, Run: p.h.beginFor(t, twin, cura.RunBackfill)}, nil}
	other.Intake = activities.NewIntake(p.h.a, other.pass, twin, p.h.connection(t))
	return other
}

func (p *pages) reopen(t *testing.T, id string) (again store.Review) {
	t.Helper()
	require.NoError(t, p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
		var err error
		again, err = tx.ReopenReview(t.Context(), id, "jo")
		return err
	}))
	return again
}

func (p *pages) decided(t *testing.T, kind cura.ReviewKind, choice store.ReviewChoice) string {
	t.Helper()
	for _, r := range p.open(t) {
		if r.Kind == kind && r.State == store.ReviewOpen {
			p.decide(t, r.ID, choice)
			return r.ID
		}
	}
	require.Failf(t, "no open review", "kind %s, open: %v", kind, p.open(t))
	return ""
}

func (p *pages) consents(t *testing.T, profile cura.ProfileID, entry cura.ConsentEntry) {
	t.Helper()
	require.NoError(t, p.h.db.EnsureHead(t.Context(), p.h.target.Org, profile))
	require.NoError(t, p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
		_, err := tx.ChangeConsent(t.Context(), store.ConsentChange{Profile: profile, Entry: entry, Actor: "jo", Role: cura.RoleConsentOfficer})
		return err
	}))
}

// rootTypes are the root types of the active consents that stand at a profile.
func (p *pages) rootTypes(t *testing.T, profile cura.ProfileID) (types []string) {
	t.Helper()
	require.NoError(t, p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
		log, err := tx.ConsentLog(t.Context(), profile)
		for _, one := range store.StandingConsents(log) {
			if one.Entry.Status == "active" {
				types = append(types, one.Entry.RootType)
			}
		}
		return err
	}))
	return types
}

func consentOf(t *testing.T, id, patient, status, updated string) fhir.Entry {
	t.Helper()
	return entry(t, `{"resourceType":"Consent","id":"`+id+`","meta":{"lastUpdated":"2026-`+updated+`T00:00:00Z"},"status":"`+status+`",
		"scope":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/consentscope","code":"patient-privacy"}]},
		"category":[{"coding":[{"system":"http://loinc.org","code":"59284-0"}]}],
		"policyRule":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"OPTIN"}]},
		"patient":{"reference":"Patient/`+patient+`"},"provision":{"type":"permit"}}`)
}

func born(t *testing.T, e fhir.Entry, year string) fhir.Entry {
	t.Helper()
	return entry(t, strings.Replace(string(e.Resource), "1980", year, 1))
}

func mrn(t *testing.T, e fhir.Entry, from, to string) fhir.Entry {
	t.Helper()
	return entry(t, strings.Replace(string(e.Resource), "mrn-"+from, "mrn-"+to, 1))
}

func TestAMatchAndAConflictAreAskedOnceEach(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	other := p.onTwin(t)
	require.Equal(t, []store.Outcome{store.Stored}, other.serve(t, born(t, patientAt{id: "x", family: "X"}.entry(t), "1999")))
	profile := other.profileOf(t, "x")
	mine := mrn(t, patientAt{id: "a", family: "A"}.entry(t), "a", "x") // no lastUpdated
	require.Equal(t, []store.Outcome{store.InReview}, p.serve(t, mine))
	var trail []string
	for range 6 {
		open := p.open(t)
		if len(open) == 0 {
			break
		}
		trail = append(trail, string(open[0].Kind))
		choice := store.ReviewChoice{Decision: cura.DecideLink, Profile: profile}
		if open[0].Kind == cura.ReviewConflict {
			choice = store.ReviewChoice{Decision: cura.KeepCura}
		}
		p.decide(t, open[0].ID, choice)
		p.again(t, mine)
	}
	require.Empty(t, p.open(t), "asked: %v", trail)
	require.Equal(t, profile, p.profileOf(t, "a"), "asked: %v", trail)
}

func TestASplitAndAConflictAreAskedOnceEach(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	p.serve(t, patientAt{id: "a", family: "A"}.entry(t), patientAt{id: "b", family: "B"}.entry(t))
	a := p.profileOf(t, "a")
	p.change(t, a, "Cura")
	into := patientAt{id: "a", family: "A", into: "b"}.entry(t)
	p.serve(t, into)
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, into)
	back := patientAt{id: "a", family: "A2"}.entry(t)
	p.serve(t, back)
	var trail []string
	for range 6 {
		open := p.open(t)
		if len(open) == 0 {
			break
		}
		trail = append(trail, string(open[0].Kind))
		choice := store.ReviewChoice{Decision: cura.DecideLink, Profile: a}
		if open[0].Kind == cura.ReviewConflict {
			choice = store.ReviewChoice{Decision: cura.KeepEHR}
		}
		p.decide(t, open[0].ID, choice)
		p.again(t, back)
	}
	require.Empty(t, p.open(t), "asked: %v", trail)
	require.Equal(t, a, p.profileOf(t, "a"), "asked: %v", trail)
}

func TestWhoIsSomebodyNewWasntMerged(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	p.serve(t, patientAt{id: "b", family: "B", at: day(1)}.entry(t))
	unlike := born(t, patientAt{id: "c", family: "Else", at: day(1), into: "b"}.entry(t), "1999")
	require.Equal(t, []store.Outcome{store.InReview}, p.serve(t, unlike))
	id := p.decided(t, cura.ReviewMatch, store.ReviewChoice{Decision: cura.DecideNew})
	p.h.retake(t, activities.RetakeInput{Selection: activities.Selection{Only: activities.RetakeDecided}, Ahead: true}, cura.Patient)
	require.Zero(t, p.h.stored(t, "SELECT count(*) FROM sync.quarantine WHERE closed_at IS NULL"), "the patient is in quarantine")
	require.NotEmpty(t, p.profileOf(t, "c"))
	require.EqualValues(t, 1, p.h.stored(t, "SELECT count(*) FROM sync.reviews WHERE review_id = $1 AND applied_at IS NOT NULL", id))
}

func TestARefusalFollowsASecondMerge(t *testing.T) {
	t.Parallel()
	p, a, b := merged(t)
	p.serve(t, patientAt{id: "c", family: "C", at: day(1)}.entry(t))
	p.consents(t, a, consent.Revocation(time.Time{}))
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
	require.Equal(t, []string{"deny"}, p.rootTypes(t, b))
	next := patientAt{id: "a", family: "A", at: day(3), into: "c"}.entry(t)
	require.Equal(t, []store.Outcome{store.InReview}, p.serve(t, next))
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, next)
	c := p.profileOf(t, "c")
	require.Equal(t, c, p.profileOf(t, "a"))
	require.Equal(t, []string{"deny"}, p.rootTypes(t, c), "the refusal follows")
}

func TestARefusalFollowsToANewProfile(t *testing.T) {
	t.Parallel()
	p, a, _ := merged(t)
	p.h.setPolicy(t, cura.PullConsentOptOut)
	p.consents(t, a, consent.Revocation(time.Time{}))
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
	p.h.settle(t)
	require.EqualValues(t, 1, p.h.stored(t, "SELECT count(*) FROM cura.withheld WHERE profile_id = $1 AND 'Observation' = ANY (types)", p.profileOf(t, "b")), "premise")
	back := patientAt{id: "a", family: "A2", at: day(3)}.entry(t)
	p.serve(t, back)
	p.decided(t, cura.ReviewSplit, store.ReviewChoice{Decision: cura.DecideNew})
	p.again(t, back)
	p.h.settle(t)
	now := p.profileOf(t, "a")
	require.EqualValues(t, 1, p.observedOf(t, now))
	require.EqualValues(t, 1, p.h.stored(t, "SELECT count(*) FROM cura.withheld WHERE profile_id = $1 AND 'Observation' = ANY (types)", now),
		"the patient has refused; their records are withheld")
}

func TestARemapCarriesNoPermitOver(t *testing.T) {
	t.Parallel()
	p, a, b := merged(t)
	require.Equal(t, []store.Outcome{store.Stored}, p.of(t, cura.Consent).serve(t, consentOf(t, "c1", "a", "active", "01-01")))
	require.Equal(t, []string{"permit"}, p.rootTypes(t, a))
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
	require.Empty(t, p.rootTypes(t, b), "a permit doesn't follow")
	p.h.retake(t, activities.RetakeInput{})
	require.Empty(t, p.rootTypes(t, b), "nor after starter remap")
}

func TestWhoWasMergedIntoAPatientGoesAlong(t *testing.T) {
	t.Parallel()
	p, _, b := merged(t)
	p.serve(t, patientAt{id: "c", family: "C", at: day(1)}.entry(t))
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
	next := patientAt{id: "b", family: "B", at: day(3), into: "c"}.entry(t)
	p.serve(t, next)
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, next)
	c := p.profileOf(t, "c")
	require.Equal(t, c, p.profileOf(t, "b"))
	p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
	p.h.retake(t, activities.RetakeInput{})
	require.Zero(t, p.observedOf(t, b), "nobody is at b's former profile but a, merged and forgotten; merged_into set: %d",
		p.h.stored(t, "SELECT count(*) FROM cura.profiles WHERE profile_id = $1 AND merged_into IS NOT NULL", b))
	require.EqualValues(t, 2, p.observedOf(t, c))
}

func TestWhoWasSplitOffIsShownNoMore(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	other := p.onTwin(t)
	theirs := born(t, patientAt{id: "x", family: "X", at: day(1)}.entry(t), "1999")
	other.serve(t, theirs)
	profile := other.profileOf(t, "x")
	mine := mrn(t, patientAt{id: "a", family: "A", at: day(5)}.entry(t), "a", "x")
	require.Equal(t, []store.Outcome{store.InReview}, p.serve(t, mine))
	id := p.decided(t, cura.ReviewMatch, store.ReviewChoice{Decision: cura.DecideLink, Profile: profile})
	require.Equal(t, []store.Outcome{store.Stored}, p.again(t, mine))
	require.Equal(t, "A", p.family(t, profile))
	require.NoError(t, p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
		_, err := tx.ChangeProfile(t.Context(), profile, func(r *cura.Profile) error { r.Gender = "female"; return nil }, "jo")
		return err
	}))
	p.decide(t, p.reopen(t, id).ID, store.ReviewChoice{Decision: cura.DecideNew})
	require.Equal(t, []store.Outcome{store.Stored}, p.again(t, mine))
	require.NotEqual(t, profile, p.profileOf(t, "a"))
	other.again(t, theirs) // what the next pull's wake does
	require.NotEqual(t, "A", p.family(t, profile), "x's profile shows a's name and birth date; open: %v", p.open(t))
}

func TestAWithdrawalSurvivesASplit(t *testing.T) {
	t.Parallel()
	p, a, b := merged(t)
	consents := p.of(t, cura.Consent)
	consents.serve(t, consentOf(t, "c1", "a", "active", "01-01"))
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
	require.Equal(t, []store.Outcome{store.Stored}, consents.serve(t, consentOf(t, "c1", "a", "inactive", "01-05")))
	require.Empty(t, p.rootTypes(t, b))
	back := patientAt{id: "a", family: "A2", at: day(8)}.entry(t)
	p.serve(t, back)
	p.decided(t, cura.ReviewSplit, store.ReviewChoice{Decision: cura.DecideLink, Profile: a})
	p.again(t, back)
	require.Empty(t, p.rootTypes(t, a), "the hospital has withdrawn Consent/c1: a permits nothing")
}

func TestEachLinkBringsARefusalOfItsOwn(t *testing.T) {
	t.Parallel()
	p, a, b := merged(t)
	other := p.onTwin(t)
	require.Equal(t, []store.Outcome{store.Stored, store.Stored}, other.serve(t, patientAt{id: "a", family: "A", at: day(1)}.entry(t), patientAt{id: "b", family: "B", at: day(1)}.entry(t)))
	require.Equal(t, a, other.profileOf(t, "a"))
	p.consents(t, a, consent.Revocation(time.Time{}))
	replaced := patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t)
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, replaced)
	other.serve(t, replaced)
	other.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	other.again(t, replaced)
	require.Equal(t, b, other.profileOf(t, "a"))
	require.Contains(t, p.rootTypes(t, b), "deny", "premise")
	back := patientAt{id: "a", family: "A2", at: day(3)}.entry(t)
	p.serve(t, back)
	p.decided(t, cura.ReviewSplit, store.ReviewChoice{Decision: cura.DecideLink, Profile: a})
	p.again(t, back)
	require.Equal(t, b, other.profileOf(t, "a"), "the other connection's a is still at b's")
	require.Contains(t, p.rootTypes(t, b), "deny", "and so is their refusal")
}

func TestAMergeAfterAllBringsTheRefusal(t *testing.T) {
	t.Parallel()
	p, a, b := merged(t)
	p.consents(t, a, consent.Revocation(time.Time{}))
	replaced := patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t)
	id := p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.KeepCura})
	p.again(t, replaced)
	p.decide(t, p.reopen(t, id).ID, store.ReviewChoice{Decision: cura.DecideLink, Profile: b, MergedInto: []string{"b"}})
	p.again(t, replaced)
	require.Equal(t, b, p.profileOf(t, "a"))
	require.Contains(t, p.rootTypes(t, b), "deny", "b's profile shows %q; a's link is replaced by b: %d", p.family(t, b),
		p.h.stored(t, "SELECT count(*) FROM sync.patient_links WHERE ehr_id = 'a' AND replaced_by = 'b'"))
}

func TestAnUnreadableVersionLeavesAMergePending(t *testing.T) {
	t.Parallel()
	p, _, _ := merged(t)
	bad := born(t, patientAt{id: "a", family: "A", at: day(3), into: "b"}.entry(t), "yesterday")
	require.Equal(t, []store.Outcome{store.Quarantined}, p.serve(t, bad))
	require.NoError(t, p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
		link, _, err := tx.LinkOf(t.Context(), p.pass.Connection, "a")
		if err != nil {
			return err
		}
		pending, err := tx.PatientPending(t.Context(), p.pass.Connection, link)
		require.NotEmpty(t, pending, "a merge is pending: nothing is written")
		return err
	}))
}

func TestWhoJoinsFollowsTheSurvivor(t *testing.T) {
	t.Parallel()
	p, a, b := merged(t)
	z := patientAt{id: "z", family: "A", at: day(1), into: "a"}.entry(t)
	items := p.prepared(t, z)
	require.Equal(t, []store.Outcome{store.Stored}, p.settled(t, items)) // as a retake that waits for the reader's lease has
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
	require.Equal(t, b, p.profileOf(t, "a"))
	err := p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
		pass, err := tx.TakeLease(t.Context(), p.pass)
		if err != nil {
			return err
		}
		return tx.ApplyWoken(t.Context(), pass, "1", items)
	})
	require.ErrorIs(t, err, store.ErrSettledMeanwhile, "z is at %s; a, that was merged, was %s", p.profileOf(t, "z"), a)
}

func TestARemapLeavesAReopenedReviewOpen(t *testing.T) {
	t.Parallel()
	p, _, _ := merged(t)
	id := p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.KeepCura})
	p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
	p.reopen(t, id)
	require.Len(t, p.open(t), 1)
	p.h.retake(t, activities.RetakeInput{}) // rows were written as of mapping "1": another release
	require.Len(t, p.open(t), 1, "the hospital has sent nothing: the question stands")
}

func TestBothOfASplitThatIsKeptAreFound(t *testing.T) {
	t.Parallel()
	p, _, b := merged(t)
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
	back := patientAt{id: "a", family: "A2", at: day(3)}.entry(t)
	p.serve(t, back)
	p.decided(t, cura.ReviewSplit, store.ReviewChoice{Decision: cura.KeepCura})
	p.again(t, back)
	require.EqualValues(t, 1, p.h.stored(t, "SELECT count(*) FROM cura.profile_identifiers WHERE profile_id = $1 AND value = 'mrn-b'", b),
		"b is still found by its own MRN")
}

func TestAProfileThatIsMergedAwayIsAskedAboutAgain(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	other := p.onTwin(t)
	other.serve(t, born(t, patientAt{id: "x", family: "X", at: day(1)}.entry(t), "1999"), patientAt{id: "y", family: "Y", at: day(1)}.entry(t))
	x, y := other.profileOf(t, "x"), other.profileOf(t, "y")
	mine := mrn(t, patientAt{id: "a", family: "A", at: day(5)}.entry(t), "a", "x")
	p.serve(t, mine)
	p.decided(t, cura.ReviewMatch, store.ReviewChoice{Decision: cura.DecideLink, Profile: x})
	gone := born(t, patientAt{id: "x", family: "X", at: day(2), into: "y"}.entry(t), "1999")
	other.serve(t, gone)
	other.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	other.again(t, gone)
	require.Equal(t, y, other.profileOf(t, "x"))
	p.again(t, mine)
	if p.profileOf(t, "a") == x {
		require.Zero(t, p.h.stored(t, "SELECT count(*) FROM cura.profiles WHERE profile_id = $1 AND merged_into IS NOT NULL", x),
			"a lives at a profile that counts as merged: never matched again, and Cura can't change it")
	}
}

func TestAMergeThatIsKeptApartTwiceIsntMerged(t *testing.T) {
	t.Parallel()
	p, a, _ := merged(t)
	replaced := patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t)
	id := p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.KeepCura})
	p.again(t, replaced)
	p.decide(t, p.reopen(t, id).ID, store.ReviewChoice{Decision: cura.KeepCura})
	p.again(t, replaced)
	require.Equal(t, a, p.profileOf(t, "a"))
	require.Zero(t, p.h.stored(t, "SELECT count(*) FROM sync.patient_links WHERE ehr_id = 'a' AND replaced_by <> ''"),
		"a keeps its own profile, and yet counts as merged into b: nothing of it is shown or written from now on, and nobody is asked")
}

func TestOldRowsGoAlongWhereTwoShareAProfile(t *testing.T) {
	t.Parallel()
	p, a, b := merged(t)
	p.h.superuser(t, "UPDATE labs.observations SET patient_ehr_id = ''") // as from before
	z := patientAt{id: "z", family: "A", at: day(1), into: "a"}.entry(t)
	require.Equal(t, []store.Outcome{store.Stored}, p.serve(t, z)) // joins a
	require.Equal(t, a, p.profileOf(t, "z"))
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
	require.Equal(t, b, p.profileOf(t, "a"))
	require.Zero(t, p.observedOf(t, a), "a's observation from before stays at the profile that a has left")
}

func TestWhoIsSomebodyNewStopsNobodyElse(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	p.serve(t, patientAt{id: "b", family: "B", at: day(1)}.entry(t))
	p.serve(t, born(t, patientAt{id: "c", family: "Else", at: day(1), into: "b"}.entry(t), "1999"))
	p.decided(t, cura.ReviewMatch, store.ReviewChoice{Decision: cura.DecideNew})
	id := p.h.begin(t, cura.RunIncremental)
	for range 3 {
		_, err := p.h.pull(t, activities.PullInput{Run: id, Type: cura.Patient})
		require.NoError(t, err)
	}
}

func TestAProfileThatIsMergedAwayKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	other := p.onTwin(t)
	other.serve(t, born(t, patientAt{id: "x", family: "X", at: day(1)}.entry(t), "1999"), patientAt{id: "y", family: "Y", at: day(1)}.entry(t))
	x := other.profileOf(t, "x")
	mine := mrn(t, patientAt{id: "a", family: "A", at: day(5)}.entry(t), "a", "x")
	p.serve(t, mine)
	p.decided(t, cura.ReviewMatch, store.ReviewChoice{Decision: cura.DecideLink, Profile: x})
	gone := born(t, patientAt{id: "x", family: "X", at: day(2), into: "y"}.entry(t), "1999")
	other.serve(t, gone)
	other.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	other.again(t, gone)
	p.again(t, mine)
	items := other.prepared(t, mrn(t, patientAt{id: "n", family: "A", at: day(6)}.entry(t), "n", "x"))
	var err error
	for range 20 {
		require.Equal(t, []store.Outcome{store.Stored}, other.settled(t, items))
		err = p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
			pass, err := tx.TakeLease(t.Context(), other.pass)
			if err != nil {
				return err
			}
			return tx.ApplyWoken(t.Context(), pass, "1", items)
		})
		if err == nil {
			break
		}
	}
	require.NoError(t, err, "twenty times")
}

func TestAMergeFollowsWhoHasMovedOn(t *testing.T) {
	t.Parallel()
	p, _, b := merged(t)
	p.serve(t, patientAt{id: "c", family: "C", at: day(1)}.entry(t))
	p.decided(t, cura.ReviewMerge, store.ReviewChoice{Decision: cura.DecideMerge})
	mine := patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t)
	items := p.prepared(t, mine)
	_ = items
	next := patientAt{id: "b", family: "B", at: day(3), into: "c"}.entry(t)
	settled, err := p.settleAgain(t, mine)
	require.NoError(t, err)
	p.serve(t, next)
	for _, r := range p.open(t) {
		if r.State == store.ReviewOpen {
			p.decide(t, r.ID, store.ReviewChoice{Decision: cura.DecideMerge})
		}
	}
	p.again(t, next)
	require.Equal(t, p.profileOf(t, "c"), p.profileOf(t, "b"))
	err = p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
		pass, err := tx.TakeLease(t.Context(), p.pass)
		if err != nil {
			return err
		}
		return tx.ApplyWoken(t.Context(), pass, "1", settled)
	})
	require.ErrorIs(t, err, store.ErrSettledMeanwhile, "a is at b's former profile: %v", p.profileOf(t, "a") == b)
}

func (p *pages) settleAgain(t *testing.T, e fhir.Entry) ([]store.Item, error) {
	t.Helper()
	return p.Again(t.Context(), []fhir.Entry{e})
}

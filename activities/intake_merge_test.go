package activities_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/store"
)

// patientAt is a patient of a hospital over time.
type patientAt struct {
	id, family string
	// at is meta.lastUpdated; zero: the EHR doesn't tell.
	at time.Time
	// into is the patient into whom this one was merged.
	into string
}

func (p patientAt) entry(t require.TestingT) fhir.Entry {
	meta, link := "", `,"active":true`
	if !p.at.IsZero() {
		meta = `,"meta":{"lastUpdated":"` + p.at.UTC().Format(time.RFC3339Nano) + `"}`
	}
	if p.into != "" {
		link = `,"active":false,"link":[{"type":"replaced-by","other":{"reference":"Patient/` + p.into + `"}}]`
	}
	raw := []byte(`{"resourceType":"Patient","id":"` + p.id + `"` + meta + link + `,"birthDate":"1980-01-01","name":[{"family":"` + p.family +
		`"}],"identifier":[{"system":"urn:mrn","value":"mrn-` + p.id + `"}]}`)
	head, err := fhir.Head(raw)
	require.NoError(t, err)
	hash, err := fhir.Hash(raw)
	require.NoError(t, err)
	return fhir.Entry{Resource: raw, Size: int64(len(raw)), Type: head.Type, ID: head.ID, LastUpdated: head.LastUpdated, Hash: hash}
}

// of are pages of another type of the same connection.
func (p *pages) of(t *testing.T, typ cura.ResourceType) *pages {
	t.Helper()
	pass := p.pass
	pass.Type = typ
	return &pages{p.h, pass, activities.NewIntake(p.h.a, pass, p.h.target, p.h.connection(t))}
}

// serve has the EHR serve patients, and says what became of each.
func (p *pages) serve(t require.TestingT, entries ...fhir.Entry) (outcomes []store.Outcome) {
	items, err := p.Prepare(context.Background(), entries)
	require.NoError(t, err)
	require.NoError(t, p.Settle(context.Background(), items))
	p.apply(t, items)
	for _, it := range items {
		outcomes = append(outcomes, it.Outcome)
	}
	return outcomes
}

// again has what has landed decided once more.
func (p *pages) again(t require.TestingT, entries ...fhir.Entry) (outcomes []store.Outcome) {
	items, err := p.Again(context.Background(), entries)
	require.NoError(t, err)
	p.apply(t, items)
	for _, it := range items {
		outcomes = append(outcomes, it.Outcome)
	}
	return outcomes
}

func (p *pages) apply(t require.TestingT, items []store.Item) {
	require.NoError(t, p.h.db.InOrg(context.Background(), p.h.target.Org, func(tx *store.Tx) error {
		_, err := tx.ApplyPatient(context.Background(), p.pass, "1", items)
		return err
	}))
}

// open lists the reviews that wait.
func (p *pages) open(t require.TestingT) (open []store.Review) {
	require.NoError(t, p.h.db.InOrg(context.Background(), p.h.target.Org, func(tx *store.Tx) error {
		var err error
		open, err = tx.Reviews(context.Background(), store.ReviewFilter{Open: true})
		return err
	}))
	return open
}

func (p *pages) decide(t require.TestingT, review string, choice store.ReviewChoice) {
	require.NoError(t, p.h.db.InOrg(context.Background(), p.h.target.Org, func(tx *store.Tx) error {
		_, err := tx.DecideReview(context.Background(), review, choice, "jo")
		return err
	}))
}

// profileOf is whose a patient is; empty: nobody's yet.
func (p *pages) profileOf(t require.TestingT, patient string) (profile cura.ProfileID) {
	require.NoError(t, p.h.db.InOrg(context.Background(), p.h.target.Org, func(tx *store.Tx) error {
		links, err := tx.Patients(context.Background(), p.pass.Connection, []string{patient})
		profile = links[patient].Profile
		return err
	}))
	return profile
}

// family is the family name that a profile shows.
func (p *pages) family(t require.TestingT, profile cura.ProfileID) (family string) {
	require.NoError(t, p.h.db.InOrg(context.Background(), p.h.target.Org, func(tx *store.Tx) error {
		state, err := tx.ProfileState(context.Background(), profile)
		if err == nil {
			family = state.Record.Name.Family
		}
		return err
	}))
	return family
}

// change has Cura change the family name of a profile.
func (p *pages) change(t require.TestingT, profile cura.ProfileID, family string) {
	require.NoError(t, p.h.db.InOrg(context.Background(), p.h.target.Org, func(tx *store.Tx) error {
		_, err := tx.ChangeProfile(context.Background(), profile, func(r *cura.Profile) error {
			r.Name.Family = family
			return nil
		}, "jo")
		return err
	}))
}

func observation(t *testing.T, id, patient string) fhir.Entry {
	t.Helper()
	return entry(t, `{"resourceType":"Observation","id":"`+id+`","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/`+patient+`"},"valueString":"y"}`)
}

func day(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }

// merged are pages of a hospital that has merged patient a into b, each of whom has an observation: it waits for a person.
func merged(t *testing.T) (p *pages, a, b cura.ProfileID) {
	t.Helper()
	p = newPages(t, cura.Patient)
	require.Equal(t, []store.Outcome{store.Stored, store.Stored}, p.serve(t, patientAt{id: "a", family: "A", at: day(1)}.entry(t), patientAt{id: "b", family: "B", at: day(1)}.entry(t)))
	require.Equal(t, []store.Outcome{store.Stored, store.Stored}, p.of(t, cura.Observation).serve(t, observation(t, "of-a", "a"), observation(t, "of-b", "b")))
	a, b = p.profileOf(t, "a"), p.profileOf(t, "b")
	require.Equal(t, []store.Outcome{store.InReview}, p.serve(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t)))
	return p, a, b
}

// observedOf is how many observations a profile has.
func (p *pages) observedOf(t *testing.T, profile cura.ProfileID) int64 {
	t.Helper()
	return p.h.stored(t, "SELECT count(*) FROM labs.observations WHERE profile_id = $1", profile)
}

func TestAMergeWaitsForAPersonAndMovesWhatHangsOnIt(t *testing.T) {
	t.Parallel()
	p, a, b := merged(t)
	require.Equal(t, a, p.profileOf(t, "a"), "until somebody has decided, nothing moves")
	open := p.open(t)
	require.Len(t, open, 1)
	require.Equal(t, cura.ReviewMerge, open[0].Kind)
	require.Equal(t, []cura.ProfileID{a, b}, open[0].Candidates)

	replaced := patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t)
	p.decide(t, open[0].ID, store.ReviewChoice{Decision: cura.DecideMerge})
	require.Equal(t, []store.Outcome{store.Stored}, p.again(t, replaced))
	require.Equal(t, b, p.profileOf(t, "a"))
	require.EqualValues(t, 2, p.observedOf(t, b))
	require.Zero(t, p.observedOf(t, a))
	require.Equal(t, "B", p.family(t, b), "what is shown is of the patient whom the EHR goes on with")
	require.EqualValues(t, 1, p.h.stored(t, "SELECT count(*) FROM cura.profiles WHERE profile_id = $1 AND merged_into = $2", a, b))
	require.Zero(t, p.h.stored(t, "SELECT count(*) FROM cura.profile_identifiers WHERE profile_id = $1", a), "nobody is matched with it any more")
	require.Empty(t, p.open(t))
	require.EqualValues(t, 2, p.h.stored(t, "SELECT count(*) FROM cura.consent_halts WHERE cause = 'merge'"), "consent is settled anew at both")

	// Decided is decided: the same version changes nothing, and what the EHR still says of the patient hangs on b.
	require.Equal(t, []store.Outcome{store.Stored}, p.again(t, replaced))
	require.Equal(t, []store.Outcome{store.Stored}, p.of(t, cura.Observation).serve(t, observation(t, "late", "a")))
	require.EqualValues(t, 3, p.observedOf(t, b))
	require.Equal(t, []store.Outcome{store.Stored}, p.serve(t, patientAt{id: "a", family: "Other", at: day(3), into: "b"}.entry(t)), "another version of the same merge is no other question")
	require.Equal(t, "B", p.family(t, b))
	require.Empty(t, p.open(t))
}

func TestAMergeThatIsTakenBackIsMovedBack(t *testing.T) {
	t.Parallel()
	for decision, check := range map[cura.ReviewDecision]func(t *testing.T, p *pages, a, b cura.ProfileID){
		cura.DecideLink: func(t *testing.T, p *pages, a, b cura.ProfileID) {
			t.Helper()
			require.Equal(t, a, p.profileOf(t, "a"))
			require.EqualValues(t, 1, p.observedOf(t, a))
			require.EqualValues(t, 1, p.observedOf(t, b))
			require.Equal(t, "A2", p.family(t, a))
			require.EqualValues(t, 1, p.h.stored(t, "SELECT count(*) FROM cura.profile_identifiers WHERE profile_id = $1", a))
			require.Zero(t, p.h.stored(t, "SELECT count(*) FROM cura.profiles WHERE merged_into IS NOT NULL"))
		},
		cura.DecideNew: func(t *testing.T, p *pages, a, b cura.ProfileID) {
			t.Helper()
			now := p.profileOf(t, "a")
			require.NotContains(t, []cura.ProfileID{a, b}, now)
			require.EqualValues(t, 1, p.observedOf(t, now))
			require.Equal(t, "A2", p.family(t, now))
		},
		cura.KeepCura: func(t *testing.T, p *pages, _, b cura.ProfileID) {
			t.Helper()
			require.Equal(t, b, p.profileOf(t, "a"))
			require.EqualValues(t, 2, p.observedOf(t, b))
			require.Equal(t, "B", p.family(t, b))
		},
	} {
		t.Run(string(decision), func(t *testing.T) {
			t.Parallel()
			p, a, b := merged(t)
			p.decide(t, p.open(t)[0].ID, store.ReviewChoice{Decision: cura.DecideMerge})
			p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))

			back := patientAt{id: "a", family: "A2", at: day(3)}.entry(t)
			require.Equal(t, []store.Outcome{store.InReview}, p.serve(t, back))
			open := p.open(t)
			require.Len(t, open, 1)
			require.Equal(t, cura.ReviewSplit, open[0].Kind)
			require.Equal(t, []cura.ProfileID{a, b}, open[0].Candidates)
			choice := store.ReviewChoice{Decision: decision}
			if decision == cura.DecideLink {
				choice.Profile = a
			}
			p.decide(t, open[0].ID, choice)
			require.Equal(t, []store.Outcome{store.Stored}, p.again(t, back))
			check(t, p, a, b)
			was := p.profileOf(t, "a")
			require.Equal(t, []store.Outcome{store.Stored}, p.again(t, back), "applied once")
			require.Equal(t, was, p.profileOf(t, "a"))
			check(t, p, a, b)
			require.Empty(t, p.open(t))
		})
	}
}

// TestAMergeThatAPersonTakesBackIsMovedBack, though the EHR still says that they are one.
func TestAMergeThatAPersonTakesBackIsMovedBack(t *testing.T) {
	t.Parallel()
	p, a, b := merged(t)
	replaced := patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t)
	first := p.open(t)[0].ID
	reopen := func() (again store.Review, err error) {
		err = p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
			again, err = tx.ReopenReview(t.Context(), first, "jo")
			return err
		})
		return again, err
	}
	_, err := reopen()
	require.ErrorContains(t, err, "it is open")
	p.decide(t, first, store.ReviewChoice{Decision: cura.DecideMerge})
	p.again(t, replaced)
	again, err := reopen()
	require.NoError(t, err)
	require.Equal(t, cura.ReviewSplit, again.Kind)
	require.Equal(t, []cura.ProfileID{a, b}, again.Candidates)
	_, err = reopen()
	require.ErrorContains(t, err, "asked again already")
	p.decide(t, again.ID, store.ReviewChoice{Decision: cura.DecideLink, Profile: a})
	for range 2 {
		require.Equal(t, []store.Outcome{store.Stored}, p.again(t, replaced))
		require.Equal(t, a, p.profileOf(t, "a"))
		require.EqualValues(t, 1, p.observedOf(t, a))
		require.Empty(t, p.open(t))
	}
	require.Equal(t, []store.Outcome{store.InReview}, p.serve(t, patientAt{id: "a", family: "A9", at: day(4), into: "b"}.entry(t)))
	require.Equal(t, cura.ReviewMerge, p.open(t)[0].Kind, "another version is another question")
}

func TestAMergeThatIsKeptApartIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	p, a, b := merged(t)
	replaced := patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t)
	p.decide(t, p.open(t)[0].ID, store.ReviewChoice{Decision: cura.KeepCura})
	for range 2 {
		require.Equal(t, []store.Outcome{store.Stored}, p.again(t, replaced))
		require.Empty(t, p.open(t))
	}
	require.Equal(t, a, p.profileOf(t, "a"))
	require.EqualValues(t, 1, p.observedOf(t, b))
	require.Equal(t, []store.Outcome{store.InReview}, p.serve(t, patientAt{id: "a", family: "A9", at: day(4), into: "b"}.entry(t)), "other content is another question")
}

// TestWhoWasMergedBeforeAnybodyKnewThemJoins: no profile is lost, so nobody is asked, unless the two aren't alike.
func TestWhoWasMergedBeforeAnybodyKnewThemJoins(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	require.Equal(t, []store.Outcome{store.Quarantined}, p.serve(t, patientAt{id: "a", family: "B", at: day(1), into: "b"}.entry(t)), "b isn't there yet")
	p.serve(t, patientAt{id: "b", family: "B", at: day(1)}.entry(t))
	require.Equal(t, []store.Outcome{store.Stored}, p.again(t, patientAt{id: "a", family: "B", at: day(1), into: "b"}.entry(t)))
	require.Equal(t, p.profileOf(t, "b"), p.profileOf(t, "a"))
	other := strings.Replace(string(patientAt{id: "c", family: "Else", at: day(1), into: "b"}.entry(t).Resource), "1980", "1999", 1)
	require.Equal(t, []store.Outcome{store.InReview}, p.serve(t, entry(t, other)))
	require.Contains(t, p.open(t)[0].Reason, "they aren't alike")
}

// TestARefusalFollowsAPatientAndAPermitDoesnt.
func TestARefusalFollowsAPatientAndAPermitDoesnt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		says    cura.ConsentEntry
		follows bool
	}{
		"a permit":  {consent.Grant(consent.Terms{}), false},
		"a refusal": {consent.Revocation(time.Time{}), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, a, b := merged(t)
			require.NoError(t, p.h.db.EnsureHead(t.Context(), p.h.target.Org, a))
			require.NoError(t, p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
				_, err := tx.ChangeConsent(t.Context(), store.ConsentChange{Profile: a, Entry: c.says, Actor: "jo", Role: cura.RoleConsentOfficer})
				return err
			}))
			p.decide(t, p.open(t)[0].ID, store.ReviewChoice{Decision: cura.DecideMerge})
			p.again(t, patientAt{id: "a", family: "A", at: day(2), into: "b"}.entry(t))
			standing := func() (n int64) {
				require.NoError(t, p.h.db.InOrg(t.Context(), p.h.target.Org, func(tx *store.Tx) error {
					log, err := tx.ConsentLog(t.Context(), b)
					for _, one := range store.StandingConsents(log) {
						if one.Entry.Status == "active" {
							n++
						}
					}
					return err
				}))
				return n
			}
			if !c.follows {
				require.Zero(t, standing())
				return
			}
			require.EqualValues(t, 1, standing())
			back := patientAt{id: "a", family: "A", at: day(3)}.entry(t)
			p.serve(t, back)
			p.decide(t, p.open(t)[0].ID, store.ReviewChoice{Decision: cura.DecideLink, Profile: a})
			p.again(t, back)
			require.Zero(t, standing(), "it leaves with the patient")
		})
	}
}

// TestWhatCuraChangedStandsAgainstOlderVersions, gives way to later ones, and a tie is for a person.
func TestWhatCuraChangedStandsAgainstOlderVersions(t *testing.T) {
	t.Parallel()
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		serve    patientAt
		outcome  store.Outcome
		decision cura.ReviewDecision
		shows    string
	}{
		"an older version":                   {patientAt{id: "a", family: "Older", at: day(2)}, store.Stored, "", "Cura"},
		"a later one":                        {patientAt{id: "a", family: "Later", at: later}, store.Stored, "", "Later"},
		"no time, kept":                      {patientAt{id: "a", family: "Untold"}, store.InReview, cura.KeepCura, "Cura"},
		"no time, taken":                     {patientAt{id: "a", family: "Untold"}, store.InReview, cura.KeepEHR, "Untold"},
		"no time, but it says the same also": {patientAt{id: "a", family: "Cura"}, store.Stored, "", "Cura"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPages(t, cura.Patient)
			p.serve(t, patientAt{id: "a", family: "First", at: day(1)}.entry(t))
			profile := p.profileOf(t, "a")
			p.change(t, profile, "Cura")
			require.Equal(t, []store.Outcome{c.outcome}, p.serve(t, c.serve.entry(t)))
			if c.decision != "" {
				require.Equal(t, "Cura", p.family(t, profile))
				open := p.open(t)
				require.Len(t, open, 1)
				require.Equal(t, cura.ReviewConflict, open[0].Kind)
				p.decide(t, open[0].ID, store.ReviewChoice{Decision: c.decision})
				require.Equal(t, []store.Outcome{store.Stored}, p.again(t, c.serve.entry(t)))
			}
			require.Equal(t, c.shows, p.family(t, profile))
			require.Equal(t, []store.Outcome{store.Stored}, p.again(t, c.serve.entry(t)), "decided is decided")
			require.Equal(t, c.shows, p.family(t, profile))
			require.Empty(t, p.open(t))
		})
	}
}

// TestAVersionThatIsMappedAgainIsNoConflictWithWhatCuraMadeOfIt.
func TestAVersionThatIsMappedAgainIsNoConflictWithWhatCuraMadeOfIt(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	untold := patientAt{id: "a", family: "Untold"}.entry(t)
	p.serve(t, untold)
	p.change(t, p.profileOf(t, "a"), "Cura")
	require.Equal(t, []store.Outcome{store.Stored}, p.again(t, untold))
	require.Equal(t, "Cura", p.family(t, p.profileOf(t, "a")))
}

// TestAnyOrderEndsLikeTheTrueOne: versions of two patients, merges of the one into the other and their taking back, and changes
// by Cura arrive in any order and more than once; whoever is asked decides as the EHR says. Then everything is as if it had come
// in the order in which it happened, and no two profiles share a link.
func TestAnyOrderEndsLikeTheTrueOne(t *testing.T) {
	t.Parallel()
	p := newPages(t, cura.Patient)
	rapid.Check(t, func(t *rapid.T) {
		run := uuid.NewString()[:8]
		a, b := "a-"+run, "b-"+run
		begun := []patientAt{{id: a, family: "A0", at: day(1)}, {id: b, family: "B0", at: day(1)}}
		for _, one := range begun {
			p.serve(t, one.entry(t))
		}
		pa, pb := p.profileOf(t, a), p.profileOf(t, b)
		truth := slices.Clone(begun)
		var events []patientAt
		for n := range rapid.IntRange(1, 6).Draw(t, "events") {
			one := patientAt{id: a, family: fmt.Sprintf("F%d", n+1), at: day(n + 2)}
			if rapid.Bool().Draw(t, "of b") {
				one.id = b
				truth[1] = one
			} else {
				if rapid.Bool().Draw(t, "merged") {
					one.into = b
				}
				truth[0] = one
			}
			events = append(events, one)
		}
		arriving := append(slices.Clone(events), events[:rapid.IntRange(0, len(events)).Draw(t, "repeated")]...)
		order := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 1))
		order.Shuffle(len(arriving), func(i, j int) { arriving[i], arriving[j] = arriving[j], arriving[i] })
		// Cura changes b's profile at some time; only then can there be versions that are later than that.
		changed := -1
		if rapid.Bool().Draw(t, "changed by Cura") {
			changed = order.IntN(len(arriving) + 1)
			truth[1].family = "Cura"
			if rapid.Bool().Draw(t, "and by the EHR later") {
				one := patientAt{id: b, family: "Last", at: time.Now().Add(time.Hour)}
				truth[1] = one
				arriving = slices.Insert(arriving, changed+order.IntN(len(arriving)-changed+1), one)
			}
		}
		decideAtOnce := rapid.Bool().Draw(t, "decided at once")
		last := map[string]patientAt{a: begun[0], b: begun[1]}
		for n, one := range append(arriving, patientAt{}) {
			if n == changed {
				p.change(t, pb, "Cura")
			}
			if one.id == "" {
				break
			}
			p.serve(t, one.entry(t))
			if one.at.After(last[one.id].at) {
				last[one.id] = one
			}
			if decideAtOnce {
				p.decideAsTheEHRSays(t, last[a], pa)
			}
		}
		p.decideAsTheEHRSays(t, last[a], pa)

		want := pa
		if truth[0].into != "" {
			want = pb
		}
		require.Equal(t, want, p.profileOf(t, a))
		require.Equal(t, pb, p.profileOf(t, b))
		shows := map[cura.ProfileID]string{pb: truth[1].family}
		if want == pa {
			shows[pa] = truth[0].family
		}
		for profile, family := range shows {
			require.Equal(t, family, p.family(t, profile))
		}
		require.Empty(t, p.open(t))
	})
	shared := p.h.stored(t, "SELECT count(*) FROM (SELECT FROM sync.patient_links GROUP BY connection_id, ehr_id HAVING count(DISTINCT profile_id) > 1) AS l")
	require.Zero(t, shared)
}

// decideAsTheEHRSays resolves what is open about a patient of whom one is the last version.
func (p *pages) decideAsTheEHRSays(t require.TestingT, one patientAt, own cura.ProfileID) {
	for _, r := range p.open(t) {
		choice := store.ReviewChoice{Decision: cura.DecideMerge}
		if r.Kind == cura.ReviewSplit {
			choice = store.ReviewChoice{Decision: cura.DecideLink, Profile: own}
		}
		p.decide(t, r.ID, choice)
		p.again(t, one.entry(t))
	}
}

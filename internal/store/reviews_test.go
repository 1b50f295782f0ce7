package store_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// reviewing is a fixture with two patients who are linked, p1 to profile first and p2 to second, and a third profile that no
// patient of the connection is linked to.
type reviewing struct {
	*fixture

	first, second, free cura.ProfileID
}

func newReviewing(t *testing.T) *reviewing {
	t.Helper()
	r := &reviewing{fixture: newFixture(t, cluster.New(t))}
	p1, p2, p3 := patient("p1", "100"), patient("p2", "200"), patient("p3", "300")
	r.applyPatient(t, r.pass(cura.Patient), p1, p2, p3)
	superuser(t, r.db, "DELETE FROM sync.patient_links WHERE ehr_id = 'p3'")
	r.first, r.second, r.free = p1.Profile, p2.Profile, p3.Profile
	return r
}

// ask opens a review about a version of a patient, and gives its id.
func (r *reviewing) ask(t *testing.T, ehrID, content string, kind cura.ReviewKind, candidates ...cura.ProfileID) string {
	t.Helper()
	it := item(ehrID, content)
	it.Outcome, it.ReviewKind, it.ReviewReason, it.Candidates = store.InReview, kind, "because of "+string(kind), candidates
	it.Record = cura.Record{Type: cura.Patient, EHRID: ehrID, PatientEHRID: ehrID}
	r.applyPatient(t, r.pass(cura.Patient), it)
	open := r.list(t, store.ReviewFilter{Open: true})
	return open[len(open)-1].ID
}

func (r *reviewing) list(t *testing.T, f store.ReviewFilter) (reviews []store.Review) {
	t.Helper()
	require.NoError(t, r.in(t, func(tx *store.Tx) error {
		var err error
		reviews, err = tx.Reviews(t.Context(), f)
		return err
	}))
	return reviews
}

func (r *reviewing) decide(t *testing.T, id string, choice store.ReviewChoice) (decided store.Review, err error) {
	t.Helper()
	err = r.in(t, func(tx *store.Tx) error {
		decided, err = tx.DecideReview(t.Context(), id, choice, "kim")
		return err
	})
	return decided, err
}

func link(p cura.ProfileID) store.ReviewChoice {
	return store.ReviewChoice{Decision: cura.DecideLink, Profile: p}
}

func TestReviewsAreListed(t *testing.T) {
	t.Parallel()
	r := newReviewing(t)
	require.Empty(t, r.list(t, store.ReviewFilter{}))
	match := r.ask(t, "p4", "a", cura.ReviewMatch, r.first, r.free)
	conflict := r.ask(t, "p1", "b", cura.ReviewConflict, r.first)
	all := r.list(t, store.ReviewFilter{})
	require.Equal(t, []string{match, conflict}, []string{all[0].ID, all[1].ID}, "the longest open first")
	require.Equal(t, []cura.ProfileID{r.first, r.free}, all[0].Candidates)
	require.Equal(t, store.ReviewOpen, all[0].State)
	require.Equal(t, "because of match", all[0].Reason)

	for name, tc := range map[string]struct {
		f    store.ReviewFilter
		want []string
	}{
		"kind":               {store.ReviewFilter{Kind: cura.ReviewConflict}, []string{conflict}},
		"connection":         {store.ReviewFilter{Connection: r.connection}, []string{match, conflict}},
		"another connection": {store.ReviewFilter{Connection: cura.ConnectionID(uuid.NewString())}, nil},
		"limit":              {store.ReviewFilter{Limit: 1}, []string{match}},
	} {
		var got []string
		for _, review := range r.list(t, tc.f) {
			got = append(got, review.ID)
		}
		require.Equal(t, tc.want, got, name)
	}

	r.applyPatient(t, r.pass(cura.Patient), patient("p4", "400"))
	require.Len(t, r.list(t, store.ReviewFilter{Open: true}), 1)
	all = r.list(t, store.ReviewFilter{})
	require.Equal(t, store.ReviewOvertaken, all[0].State)
	require.NotNil(t, all[0].ClosedAt)
}

func TestAReviewIsReadWithBothSides(t *testing.T) {
	t.Parallel()
	r := newReviewing(t)
	id := r.ask(t, "p1", "the EHR's version", cura.ReviewMerge, r.first, r.second)
	require.NoError(t, r.in(t, func(tx *store.Tx) error {
		d, err := tx.Review(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, "the EHR's version", string(d.Raw))
		require.Equal(t, r.first, d.Linked)
		require.Len(t, d.Profiles, 2)
		require.Equal(t, "200", d.Profile(r.second).Record.Identifiers[0].Value)
		require.Equal(t, r.connection, d.Profile(r.first).Connection)
		require.Nil(t, d.Profile(r.free))
		return nil
	}))

	id = r.ask(t, "p5", "somebody", cura.ReviewMatch)
	require.NoError(t, r.in(t, func(tx *store.Tx) error {
		d, err := tx.Review(t.Context(), id)
		require.Empty(t, d.Linked)
		require.Empty(t, d.Profiles)
		return err
	}))

	it := item("p6", "huge")
	it.Raw, it.Outcome, it.ReviewKind, it.ReviewReason = nil, store.InReview, cura.ReviewMatch, "x"
	r.applyPatient(t, r.pass(cura.Patient), it)
	id = r.list(t, store.ReviewFilter{})[2].ID
	require.NoError(t, r.in(t, func(tx *store.Tx) error {
		d, err := tx.Review(t.Context(), id)
		require.Nil(t, d.Raw)
		return err
	}))
}

// TestDecisions: what fits each kind of review, and which profile it is for.
func TestDecisions(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		kind       cura.ReviewKind
		candidates func(t *testing.T, r *reviewing) []cura.ProfileID
		choice     func(r *reviewing) store.ReviewChoice
		chosen     func(r *reviewing) cura.ProfileID
	}{
		"link a match": {
			cura.ReviewMatch, func(_ *testing.T, r *reviewing) []cura.ProfileID { return []cura.ProfileID{r.first, r.free} },
			func(r *reviewing) store.ReviewChoice { return link(r.free) }, func(r *reviewing) cura.ProfileID { return r.free },
		},
		"link a match to whom nobody thought of": {
			cura.ReviewMatch, func(*testing.T, *reviewing) []cura.ProfileID { return nil },
			func(r *reviewing) store.ReviewChoice { return link(cura.ProfileID(strings.ToUpper(string(r.free)))) }, func(r *reviewing) cura.ProfileID { return r.free },
		},
		"link a match to the profile of whom they were merged into": {
			cura.ReviewMatch, func(_ *testing.T, r *reviewing) []cura.ProfileID { return []cura.ProfileID{r.second} },
			func(r *reviewing) store.ReviewChoice {
				return store.ReviewChoice{Decision: cura.DecideLink, Profile: r.second, MergedInto: []string{"p2"}}
			},
			func(r *reviewing) cura.ProfileID { return r.second },
		},
		"a match is somebody new": {
			cura.ReviewMatch, func(_ *testing.T, r *reviewing) []cura.ProfileID { return []cura.ProfileID{r.first} },
			func(*reviewing) store.ReviewChoice { return store.ReviewChoice{Decision: cura.DecideNew} }, nil,
		},
		"follow a merge": {
			cura.ReviewMerge, func(_ *testing.T, r *reviewing) []cura.ProfileID { return []cura.ProfileID{r.free, r.second} },
			func(*reviewing) store.ReviewChoice { return store.ReviewChoice{Decision: cura.DecideMerge} }, func(r *reviewing) cura.ProfileID { return r.second },
		},
		"follow a merge into one that was merged since": {
			cura.ReviewMerge, func(t *testing.T, r *reviewing) []cura.ProfileID {
				t.Helper()
				superuser(t, r.db, "UPDATE cura.profiles SET merged_into = '"+string(r.first)+"' WHERE profile_id = '"+string(r.second)+"'")
				return []cura.ProfileID{r.free, r.second}
			},
			func(*reviewing) store.ReviewChoice { return store.ReviewChoice{Decision: cura.DecideMerge} }, func(r *reviewing) cura.ProfileID { return r.first },
		},
		"don't follow a merge": {
			cura.ReviewMerge, func(_ *testing.T, r *reviewing) []cura.ProfileID { return []cura.ProfileID{r.first, r.second} },
			func(*reviewing) store.ReviewChoice { return store.ReviewChoice{Decision: cura.KeepCura} }, nil,
		},
		"take a merge back": {
			cura.ReviewSplit, func(t *testing.T, r *reviewing) []cura.ProfileID {
				t.Helper()
				superuser(t, r.db, "UPDATE cura.profiles SET merged_into = '"+string(r.second)+"' WHERE profile_id = '"+string(r.free)+"'")
				return []cura.ProfileID{r.free, r.second}
			},
			func(r *reviewing) store.ReviewChoice { return link(r.free) }, func(r *reviewing) cura.ProfileID { return r.free },
		},
		"a split makes somebody new": {
			cura.ReviewSplit, func(_ *testing.T, r *reviewing) []cura.ProfileID { return []cura.ProfileID{r.first} },
			func(*reviewing) store.ReviewChoice { return store.ReviewChoice{Decision: cura.DecideNew} }, nil,
		},
		"the EHR is right": {
			cura.ReviewConflict, func(_ *testing.T, r *reviewing) []cura.ProfileID { return []cura.ProfileID{r.first} },
			func(*reviewing) store.ReviewChoice { return store.ReviewChoice{Decision: cura.KeepEHR} }, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReviewing(t)
			id := r.ask(t, "p4", "a", tc.kind, tc.candidates(t, r)...)
			require.Equal(t, []bool{true}, storetest.Query[bool](t, r.db, "SELECT attention FROM directory.connections WHERE name = 'main'"))
			decided, err := r.decide(t, id, tc.choice(r))
			require.NoError(t, err)
			require.Equal(t, tc.choice(r).Decision, decided.Decision)
			if tc.chosen != nil {
				require.Equal(t, tc.chosen(r), decided.Chosen)
			} else {
				require.Empty(t, decided.Chosen)
			}
			require.Equal(t, "kim", decided.DecidedBy)
			require.Equal(t, store.ReviewWasDecided, decided.State, "open until it is applied")
			require.Nil(t, decided.ClosedAt)
			require.Equal(t, []store.Review{decided}, r.list(t, store.ReviewFilter{Open: true}))
			require.Equal(t, []string{`{"asserted":true,"decision":"` + string(decided.Decision) + `","kind":"` + string(tc.kind) + `","review":"` + id + `"}`},
				storetest.Query[string](t, r.db, "SELECT details::text FROM audit.records WHERE kind = 'review.decided' AND actor = 'kim'"))
			require.Equal(t, []bool{false}, storetest.Query[bool](t, r.db, "SELECT attention FROM directory.connections WHERE name = 'main'"),
				"nobody is waited for any more")
		})
	}
}

// TestRefusedDecisions: each says why and what to do, and changes nothing.
func TestRefusedDecisions(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		kind   cura.ReviewKind
		choice func(t *testing.T, r *reviewing) store.ReviewChoice
		fault  fault.Kind
		says   string
	}{
		"keep what, of a match": {
			cura.ReviewMatch, choose(store.ReviewChoice{Decision: cura.KeepCura}), fault.Config,
			"a review of kind match can't be decided by keep-cura. What fits is: link, new",
		},
		"a new profile for a conflict": {
			cura.ReviewConflict, choose(store.ReviewChoice{Decision: cura.DecideNew}), fault.Config, "What fits is: keep-ehr, keep-cura",
		},
		"a new profile for a merge": {
			cura.ReviewMerge, choose(store.ReviewChoice{Decision: cura.DecideNew}), fault.Config, "What fits is: merge, keep-cura",
		},
		"merge a split": {cura.ReviewSplit, choose(store.ReviewChoice{Decision: cura.DecideMerge}), fault.Config, "What fits is: link, new, keep-cura"},
		"no decision":   {cura.ReviewSplit, choose(store.ReviewChoice{}), fault.Config, "What fits is"},
		"link to nobody": {
			cura.ReviewMatch, choose(store.ReviewChoice{Decision: cura.DecideLink}), fault.Config, "no profile is named to link the patient to",
		},
		"new, and a profile": {
			cura.ReviewMatch, choose(store.ReviewChoice{Decision: cura.DecideNew, Profile: "x"}), fault.Config, "a profile is named with link, not with new",
		},
		"link to an unknown profile": {cura.ReviewMatch, choose(link(cura.ProfileID(uuid.NewString()))), fault.NotFound, "no such profile"},
		"link to what isn't an id":   {cura.ReviewMatch, choose(link("p1")), fault.NotFound, "no such profile"},
		"link to a profile of another org": {cura.ReviewMatch, func(t *testing.T, r *reviewing) store.ReviewChoice {
			t.Helper()
			return link(otherOrgsProfile(t, r.db))
		}, fault.NotFound, "no such profile"},
		"link to a profile that was merged away": {cura.ReviewMatch, func(t *testing.T, r *reviewing) store.ReviewChoice {
			t.Helper()
			superuser(t, r.db, "UPDATE cura.profiles SET merged_into = '"+string(r.first)+"' WHERE profile_id = '"+string(r.free)+"'")
			return link(r.free)
		}, fault.Conflict, "has been merged into "},
		"link to another patient's profile": {cura.ReviewMatch, func(_ *testing.T, r *reviewing) store.ReviewChoice {
			return link(r.first)
		}, fault.Conflict, "another patient of this connection is linked to profile "},
		"link of a split to where another is": {cura.ReviewSplit, func(_ *testing.T, r *reviewing) store.ReviewChoice {
			return link(r.second)
		}, fault.Conflict, "another patient of this connection is linked to profile "},
		"a merge into nobody knows whom": {
			cura.ReviewMerge, choose(store.ReviewChoice{Decision: cura.DecideMerge}), fault.Conflict, "it isn't known whose record",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReviewing(t)
			id := r.ask(t, "p4", "a", tc.kind, r.first)
			_, err := r.decide(t, id, tc.choice(t, r))
			requireKind(t, err, tc.fault)
			require.ErrorContains(t, err, tc.says)
			require.Equal(t, store.ReviewOpen, r.list(t, store.ReviewFilter{})[0].State)
			require.Empty(t, storetest.Query[string](t, r.db, "SELECT kind FROM audit.records WHERE kind = 'review.decided'"))
		})
	}
}

func choose(c store.ReviewChoice) func(*testing.T, *reviewing) store.ReviewChoice {
	return func(*testing.T, *reviewing) store.ReviewChoice { return c }
}

// otherOrgsProfile makes a profile in another org.
func otherOrgsProfile(t *testing.T, db *storetest.DB) cura.ProfileID {
	t.Helper()
	org, err := db.AddOrg(t.Context(), "another", "test")
	require.NoError(t, err)
	other := &fixture{db: db, org: org.ID, connection: addConnection(t, db, org.ID, "main"), run: uuid.NewString()}
	other.startRun(t, other.run, cura.RunBackfill)
	p := patient("x1", "900")
	other.applyPatient(t, other.pass(cura.Patient), p)
	return p.Profile
}

// A patient who was merged has a link still, but isn't alive under it: the profile is free for one who is.
func TestAProfileOfAMergedPatientIsFree(t *testing.T) {
	t.Parallel()
	r := newReviewing(t)
	superuser(t, r.db, "UPDATE sync.patient_links SET replaced_by = 'p2' WHERE ehr_id = 'p1'")
	_, err := r.decide(t, r.ask(t, "p4", "a", cura.ReviewMatch, r.first), link(r.first))
	require.NoError(t, err)
}

func TestAReviewIsDecidedOnce(t *testing.T) {
	t.Parallel()
	r := newReviewing(t)
	id := r.ask(t, "p4", "a", cura.ReviewMatch, r.free)
	_, err := r.decide(t, id, link(r.free))
	require.NoError(t, err)
	for range 2 {
		_, err = r.decide(t, id, store.ReviewChoice{Decision: cura.DecideNew})
		requireKind(t, err, fault.Conflict)
		require.ErrorContains(t, err, "already decided by kim at ")
		require.ErrorContains(t, err, ": link. See what came of it with: starter reviews show "+id)
		superuser(t, r.db, "UPDATE sync.reviews SET closed_at = now(), applied_at = clock_timestamp()")
	}
	require.Equal(t, store.ReviewApplied, r.list(t, store.ReviewFilter{})[0].State)
	require.Equal(t, []int64{1}, storetest.Query[int64](t, r.db, "SELECT count(*) FROM audit.records WHERE kind = 'review.decided'"))
}

func TestOfManyWhoDecideAtOnceOneDoes(t *testing.T) {
	t.Parallel()
	r := newReviewing(t)
	id := r.ask(t, "p4", "a", cura.ReviewMatch, r.free)
	var decided atomic.Int64
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			err := r.db.InOrg(t.Context(), r.org, func(tx *store.Tx) error {
				_, err := tx.DecideReview(t.Context(), id, link(r.free), "kim")
				return err
			})
			if fault.Is(err, fault.Conflict) {
				return nil
			}
			decided.Add(1)
			return err
		})
	}
	require.NoError(t, group.Wait())
	require.EqualValues(t, 1, decided.Load())
}

// Merges that go round end nowhere: a person has to say so.
func TestAMergeIntoARoundOfMergesIsRefused(t *testing.T) {
	t.Parallel()
	r := newReviewing(t)
	for from, into := range map[cura.ProfileID]cura.ProfileID{r.first: r.second, r.second: r.first} {
		superuser(t, r.db, "UPDATE cura.profiles SET merged_into = '"+string(into)+"' WHERE profile_id = '"+string(from)+"'")
	}
	_, err := r.decide(t, r.ask(t, "p4", "a", cura.ReviewMerge, r.free, r.second), store.ReviewChoice{Decision: cura.DecideMerge})
	requireKind(t, err, fault.Conflict)
	require.ErrorContains(t, err, "--keep cura")
}

func TestAVersionThatWasReplacedIsntDecidedAnyMore(t *testing.T) {
	t.Parallel()
	r := newReviewing(t)
	old := r.ask(t, "p4", "a", cura.ReviewMatch, r.free)
	newer := r.ask(t, "p4", "b", cura.ReviewMatch, r.free)
	_, err := r.decide(t, old, link(r.free))
	requireKind(t, err, fault.Conflict)
	require.ErrorContains(t, err, "the hospital has sent another version of the patient since. Decide about that one: starter reviews show "+newer)

	r.applyPatient(t, r.pass(cura.Patient), patient("p4", "400"))
	_, err = r.decide(t, newer, link(r.free))
	requireKind(t, err, fault.Conflict)
	require.ErrorContains(t, err, "there is nothing to decide any more")
}

func TestAReviewOfAnotherOrgIsUnknown(t *testing.T) {
	t.Parallel()
	r := newReviewing(t)
	id := r.ask(t, "p4", "a", cura.ReviewMatch, r.free)
	org, err := r.db.AddOrg(t.Context(), "another", "test")
	require.NoError(t, err)
	for _, id := range []string{id, uuid.NewString(), "p4"} {
		err = r.db.InOrg(t.Context(), org.ID, func(tx *store.Tx) error {
			reviews, err := tx.Reviews(t.Context(), store.ReviewFilter{})
			require.NoError(t, err)
			require.Empty(t, reviews)
			_, err = tx.Review(t.Context(), id)
			requireKind(t, err, fault.NotFound)
			_, err = tx.DecideReview(t.Context(), id, link(r.free), "eve")
			return err
		})
		requireKind(t, err, fault.NotFound)
		require.ErrorContains(t, err, "there is no such review")
	}
	require.Equal(t, store.ReviewOpen, r.list(t, store.ReviewFilter{})[0].State)
}

// TestWhoWaitsForAReview: what is decided waits for nobody.
func TestWhoWaitsForAReview(t *testing.T) {
	t.Parallel()
	r := newReviewing(t)
	id := r.ask(t, "p4", "a", cura.ReviewMatch, r.free)
	r.ask(t, "p5", "a", cura.ReviewMatch, r.free)
	waiting := func() (all []store.Waiting) {
		require.NoError(t, r.in(t, func(tx *store.Tx) error {
			var err error
			all, err = tx.Attention(t.Context())
			return err
		}))
		return all
	}
	require.Len(t, waiting(), 1)
	require.Equal(t, "2 patients wait for a decision: because of match", waiting()[0].Why)
	require.Equal(t, []string{"starter reviews list CONNECTION"}, waiting()[0].Commands)
	_, err := r.decide(t, id, link(r.free))
	require.NoError(t, err)
	require.Equal(t, "1 patients wait for a decision: because of match", waiting()[0].Why)
}

package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// changeProfile has Cura change a profile of the fixture's org.
func (f *fixture) changeProfile(t *testing.T, id cura.ProfileID, change func(*cura.Profile) error) (changed []string, err error) {
	t.Helper()
	err = f.in(t, func(tx *store.Tx) error {
		changed, err = tx.ChangeProfile(t.Context(), id, change, "kim")
		return err
	})
	return changed, err
}

func (f *fixture) profile(t *testing.T, id cura.ProfileID) (state store.ProfileState, changes []store.ProfileChange) {
	t.Helper()
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		if state, err = tx.ProfileState(t.Context(), id); err != nil {
			return err
		}
		changes, err = tx.ProfileChanges(t.Context(), id)
		return err
	}))
	return state, changes
}

func birth(text string, precision cura.Precision, layout string) *cura.Moment {
	at, _ := time.Parse(layout, text)
	return &cura.Moment{Text: text, Precision: precision, Start: at, End: at.AddDate(0, 0, 1)}
}

func TestCuraChangesAProfile(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	p := patient("p1", "100")
	f.applyPatient(t, f.pass(cura.Patient), p)
	before, changes := f.profile(t, p.Profile)
	require.Nil(t, before.ChangedAt)
	require.Empty(t, changes)

	yes := true
	changed, err := f.changeProfile(t, p.Profile, func(p *cura.Profile) error {
		p.Name.Family, p.BirthDate, p.Gender, p.Deceased = "Okafor", birth("1980-02-28", cura.PrecisionDay, time.DateOnly), "female", &yes
		p.Telecom = append(p.Telecom, cura.ContactPoint{System: "phone", Value: "555"})
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"name.display", "name.family", "birth_date", "gender", "deceased", "telecom"}, changed)
	after, changes := f.profile(t, p.Profile)
	require.Equal(t, "A Okafor", after.Record.Name.Display, "the name as a whole follows its parts")
	require.NotNil(t, after.ChangedAt)
	require.Equal(t, before.LastUpdated, after.LastUpdated)
	require.Equal(t, []store.ProfileChange{{Elements: changed, Actor: "kim", ChangedAt: *after.ChangedAt}}, changes)
	require.Equal(t, []string{"A Okafor|Okafor|A|1980-02-28|day|female|t"}, storetest.Query[string](t, f.db, `
		SELECT concat_ws('|', name, family, given, birth_date, birth_date_precision, gender, deceased) FROM cura.profiles`), "the columns follow")
	require.Equal(t, []string{"B"}, storetest.Query[string](t, f.db, "SELECT before->'name'->>'family' FROM cura.profile_changes"))
	require.Equal(t, []string{"Okafor"}, storetest.Query[string](t, f.db, "SELECT after->'name'->>'family' FROM cura.profile_changes"))
	for _, details := range storetest.Query[string](t, f.db, "SELECT details::text FROM audit.records WHERE kind = 'profile.changed' AND actor = 'kim'") {
		require.Contains(t, details, "birth_date")
		require.NotContains(t, details, "Okafor")
		require.NotContains(t, details, "1980")
	}

	// The same once more changes nothing.
	changed, err = f.changeProfile(t, p.Profile, func(p *cura.Profile) error {
		p.Name.Family, p.Gender = "Okafor", "female"
		return nil
	})
	require.NoError(t, err)
	require.Empty(t, changed)
	again, changes := f.profile(t, p.Profile)
	require.Equal(t, after, again)
	require.Len(t, changes, 1)
	require.Equal(t, []int64{1}, storetest.Query[int64](t, f.db, "SELECT count(*) FROM audit.records WHERE kind = 'profile.changed'"))

	// The EHR's next version is shown whole.
	f.applyPatient(t, f.pass(cura.Patient), nextVersion(p))
	shown, _ := f.profile(t, p.Profile)
	require.Equal(t, "B", shown.Record.Name.Family)
	require.Nil(t, shown.ChangedAt)
}

// nextVersion is another version of a patient who is linked by now.
func nextVersion(p store.Item) store.Item {
	next := item(p.EHRID, "next version")
	next.Profile, next.Record = p.Profile, p.Record
	return next
}

func TestANameFollowsItsParts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*cura.Name)
		want   *cura.Name
	}{
		"given names":          {func(n *cura.Name) { n.Given = []string{"Ada", "M."} }, &cura.Name{Display: "Ada M. B", Family: "B", Given: []string{"Ada", "M."}}},
		"no family name":       {func(n *cura.Name) { n.Family = "" }, &cura.Name{Display: "A", Given: []string{"A"}}},
		"a whole of its own":   {func(n *cura.Name) { n.Family, n.Display = "C", "C, A" }, &cura.Name{Display: "C, A", Family: "C", Given: []string{"A"}}},
		"a use":                {func(n *cura.Name) { n.Use = "usual" }, &cura.Name{Display: "A B", Family: "B", Given: []string{"A"}, Use: "usual"}},
		"no part that is left": {func(n *cura.Name) { n.Family, n.Given = "", nil }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, cluster.New(t))
			p := patient("p1", "100")
			f.applyPatient(t, f.pass(cura.Patient), p)
			_, err := f.changeProfile(t, p.Profile, func(p *cura.Profile) error {
				tc.change(p.Name)
				return nil
			})
			require.NoError(t, err)
			state, _ := f.profile(t, p.Profile)
			require.Equal(t, tc.want, state.Record.Name)
		})
	}
}

// TestRefusedChangesOfProfiles: each leaves everything as it was.
func TestRefusedChangesOfProfiles(t *testing.T) {
	t.Parallel()
	own := errors.New("the caller's own")
	for name, tc := range map[string]struct {
		change func(*cura.Profile) error
		kind   fault.Kind
		says   string
	}{
		"gender": {func(p *cura.Profile) error { p.Gender = "divers"; return nil }, fault.Config, "gender isn't a code of R4's administrative-gender"},
		"birth date": {func(p *cura.Profile) error {
			p.BirthDate = birth("1980-02-30", cura.PrecisionDay, time.DateOnly)
			return nil
		}, fault.Config, "birth_date isn't a date"},
		"time of birth":        {func(p *cura.Profile) error { p.BirthDate = &cura.Moment{Text: "1980-02-28T08:00"}; return nil }, fault.Config, "birth_date isn't a date"},
		"precision":            {func(p *cura.Profile) error { p.BirthDate = birth("1980", cura.PrecisionMonth, "2006"); return nil }, fault.Config, "birth_date isn't a date"},
		"identifiers":          {func(p *cura.Profile) error { p.Identifiers = nil; return nil }, fault.Config, "identifiers are the EHR's own"},
		"the caller's refusal": {func(*cura.Profile) error { return own }, fault.Unknown, "the caller's own"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, cluster.New(t))
			p := patient("p1", "100")
			f.applyPatient(t, f.pass(cura.Patient), p)
			before, _ := f.profile(t, p.Profile)
			_, err := f.changeProfile(t, p.Profile, tc.change)
			requireKind(t, err, tc.kind)
			require.ErrorContains(t, err, tc.says)
			after, changes := f.profile(t, p.Profile)
			require.Equal(t, before, after)
			require.Empty(t, changes)
		})
	}
}

func TestAProfileThatIsntThereIsntChanged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	p, q := patient("p1", "100"), patient("p2", "200")
	f.applyPatient(t, f.pass(cura.Patient), p, q)
	for _, id := range []cura.ProfileID{cura.ProfileID(uuid.NewString()), "p1", otherOrgsProfile(t, f.db)} {
		_, err := f.changeProfile(t, id, func(*cura.Profile) error { return context.Canceled })
		requireKind(t, err, fault.NotFound)
		require.ErrorContains(t, err, "the org has no such profile")
		requireKind(t, f.in(t, func(tx *store.Tx) error {
			_, err := tx.ProfileState(t.Context(), id)
			return err
		}), fault.NotFound)
	}

	superuser(t, f.db, "UPDATE cura.profiles SET merged_into = '"+string(q.Profile)+"' WHERE profile_id = '"+string(p.Profile)+"'")
	_, err := f.changeProfile(t, p.Profile, func(*cura.Profile) error { return nil })
	requireKind(t, err, fault.Conflict)
	require.ErrorContains(t, err, "it has been merged into profile "+string(q.Profile))
}

// TestTheLogOfChangesIsAppendOnly: who works for the machinery can't rewrite what Cura has changed.
func TestTheLogOfChangesIsAppendOnly(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	a, _ := twoOrgs(t, db)
	as(t, session(t, db), "cura_app", string(a.ID), func(tx pgx.Tx) {
		_, err := tx.Exec(t.Context(), "UPDATE cura.profile_changes SET actor = 'x'")
		requireState(t, err, insufficientPrivilege)
	})
}

package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func (f *fixture) enrol(t *testing.T, enrolments ...store.Enrolment) store.EnrolCounts {
	t.Helper()
	var counts store.EnrolCounts
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		counts, err = tx.Enrol(t.Context(), f.connection, enrolments, "pat")
		return err
	}))
	return counts
}

// due are the values of the enrolments to be asked for now, in order.
func (f *fixture) due(t *testing.T) []string {
	t.Helper()
	values := []string{}
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		list, err := tx.DueEnrolments(t.Context(), f.connection, 100)
		for _, e := range list {
			values = append(values, e.Value)
		}
		require.NoError(t, err)
		n, err := tx.CountDue(t.Context(), f.connection)
		require.Len(t, list, n)
		return err
	}))
	return values
}

// settle settles the due enrolment with that value.
func (f *fixture) settle(t *testing.T, value string, s store.Settlement) (joined bool) {
	t.Helper()
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		list, err := tx.DueEnrolments(t.Context(), f.connection, 100)
		require.NoError(t, err)
		for _, e := range list {
			if e.Value == value {
				joined, err = tx.SettleEnrolment(t.Context(), f.connection, e.ID, s)
				return err
			}
		}
		require.Fail(t, "it isn't due")
		return nil
	}))
	return joined
}

func TestAnEnrolmentIsAskedForUntilItsPersonIsFound(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	counts := f.enrol(t,
		store.Enrolment{Value: "1", Family: "A", Line: 2}, store.Enrolment{Value: "2", BirthDate: "1970", Line: 3},
		store.Enrolment{Value: "3", Family: "C", Line: 4}, store.Enrolment{Value: "4", Family: "D", Line: 5})
	require.Equal(t, store.EnrolCounts{Added: 4}, counts)
	require.Equal(t, []string{"1", "2", "3", "4"}, f.due(t))

	require.True(t, f.settle(t, "1", store.Settlement{State: store.EnrolmentFound, EHRID: "p1"}))
	f.settle(t, "2", store.Settlement{State: store.EnrolmentNotFound, Reason: "no patient has it"})
	f.settle(t, "3", store.Settlement{State: store.EnrolmentAmbiguous, Reason: "two patients have it"})
	f.settle(t, "4", store.Settlement{State: store.EnrolmentPending, Reason: "the EHR's answer was broken"})
	require.Empty(t, f.due(t))
	require.Equal(t, cura.RosterEnrolment, f.members(t)["p1"].Source)

	superuser(t, f.db, "UPDATE sync.enrolments SET asked_at = asked_at - interval '2 minutes'")
	require.Equal(t, []string{"4"}, f.due(t), "an answer of no use is asked for again soon")
	superuser(t, f.db, "UPDATE sync.enrolments SET asked_at = asked_at - interval '1 day'")
	require.ElementsMatch(t, []string{"2", "4"}, f.due(t), "who wasn't found may be there a day later; a person decides about the ambiguous")

	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		open, err := tx.OpenEnrolments(t.Context(), f.connection, 100)
		require.NoError(t, err)
		require.Len(t, open, 3)
		require.Equal(t, store.EnrolmentAmbiguous, open[0].State)
		require.Equal(t, 4, open[0].Line)
		require.Equal(t, "two patients have it", open[0].Reason)
		require.Empty(t, open[0].Value, "who it is isn't read for showing")
		counts, err := tx.RosterCounts(t.Context(), f.connection)
		require.Equal(t, map[store.EnrolmentState]int{"found": 1, "pending": 1, "not-found": 1, "ambiguous": 1}, counts.Enrolments)
		require.Equal(t, 1, counts.Active())
		return err
	}))
}

func TestEnrollingAgainAsksAgainUnlessThePersonIsAMember(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	all := []store.Enrolment{{Value: "1", Family: "A"}, {Value: "2", Family: "B"}, {Value: "3", Family: "C"}}
	f.enrol(t, all...)
	f.settle(t, "1", store.Settlement{State: store.EnrolmentFound, EHRID: "p1"})
	f.settle(t, "2", store.Settlement{State: store.EnrolmentAmbiguous, Reason: "the birth date is another"})
	f.settle(t, "3", store.Settlement{State: store.EnrolmentFound, EHRID: "p3"})
	f.removeMembers(t, "p3")

	counts := f.enrol(t, append(all, store.Enrolment{Value: "4", Family: "D"})...)
	require.Equal(t, store.EnrolCounts{Added: 1, Again: 2, Known: 1}, counts)
	require.ElementsMatch(t, []string{"2", "3", "4"}, f.due(t))
	require.True(t, f.settle(t, "3", store.Settlement{State: store.EnrolmentFound, EHRID: "p3"}), "back on the roster")
	require.False(t, f.settle(t, "2", store.Settlement{State: store.EnrolmentFound, EHRID: "p1"}), "the same patient by another identifier")

	require.Equal(t, []int64{2}, storetest.Query[int64](t, f.db, "SELECT count(*) FROM audit.records WHERE kind = $1", audit.EnrolmentsStored))
}

func TestWhomCuraKnowsIsEnrolledWhereTheyArentLinked(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	known := func(id, mrn, family string) store.Item {
		it := patient(id, mrn)
		it.Record.Profile.Name.Family = family
		return it
	}
	f.applyPatient(t, f.pass(cura.Patient), known("p1", "100", "B"), known("p2", "200", "C"), known("p3", "300", ""))
	second := &fixture{db: f.db, org: f.org, connection: addConnection(t, f.db, f.org, "second"), run: f.run}
	toEnrol := func(f *fixture, strategy cura.MatchStrategy) (values []string) {
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			list, err := tx.ProfilesToEnrol(t.Context(), f.connection, strategy, 10)
			for _, e := range list {
				require.NotEmpty(t, e.Profile)
				values = append(values, e.Value)
			}
			return err
		}))
		return values
	}
	mrn := cura.MatchStrategy{By: cura.MatchMRN, System: "urn:mrn"}
	require.Empty(t, toEnrol(f, mrn), "all are linked here")
	require.Equal(t, []string{"100", "200"}, toEnrol(second, mrn), "but not there; nobody could tell the third from others")
	require.Empty(t, toEnrol(second, cura.MatchStrategy{By: cura.MatchMRN, System: "urn:other"}))
	require.Len(t, toEnrol(second, cura.MatchStrategy{By: cura.MatchCuraID, System: "urn:cura"}), 2, "a Cura id is every profile's own")

	second.enrol(t, store.Enrolment{Value: "100", Family: "B"})
	require.Equal(t, []string{"200"}, toEnrol(second, mrn), "who is enrolled already is left alone")
}

func TestAnotherMatchIdentifierAsksForEverybodyAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	f.applyPatient(t, f.pass(cura.Patient), patient("p9", "900"))
	profile := storetest.Query[string](t, f.db, "SELECT profile_id::text FROM cura.profiles")[0]
	f.enrol(t, store.Enrolment{Value: "1", Family: "A"}, store.Enrolment{Value: "2", Family: "B"}, store.Enrolment{Value: "3", Family: "C", Profile: cura.ProfileID(profile)})
	f.settle(t, "1", store.Settlement{State: store.EnrolmentFound, EHRID: "p1"})
	f.settle(t, "2", store.Settlement{State: store.EnrolmentNotFound})
	f.settle(t, "3", store.Settlement{State: store.EnrolmentNotFound})
	f.edit(t, func(c *cura.Connection) { c.Match = cura.MatchStrategy{By: cura.MatchMRN, System: "urn:other"} })
	require.Equal(t, []string{"2"}, f.due(t), "what Cura's own records gave is of the old system")
}

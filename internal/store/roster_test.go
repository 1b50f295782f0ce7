package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// superuser runs a statement past row level security: what time would do, or another part of Cura.
func superuser(t *testing.T, db *storetest.DB, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.SuperuserURL)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func (f *fixture) addMembers(t *testing.T, source cura.RosterSource, ids ...string) (added, known int) {
	t.Helper()
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		added, known, err = tx.AddMembers(t.Context(), f.connection, source, ids, "pat")
		return err
	}))
	return added, known
}

func (f *fixture) removeMembers(t *testing.T, ids ...string) (removed, unknown int) {
	t.Helper()
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		removed, unknown, err = tx.RemoveMembers(t.Context(), f.connection, ids, "pat")
		return err
	}))
	return removed, unknown
}

// members are the active members by EHR id.
func (f *fixture) members(t *testing.T) map[string]store.Member {
	t.Helper()
	all := map[string]store.Member{}
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		list, err := tx.Members(t.Context(), f.connection, "", 1000)
		for _, m := range list {
			all[m.EHRID] = m
		}
		return err
	}))
	return all
}

func TestMembersAreListedInPiecesByTheirIDs(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	var ids []string
	for i := range 25 {
		ids = append(ids, fmt.Sprintf("p%d", i))
	}
	added, known := f.addMembers(t, cura.RosterList, ids...)
	require.Equal(t, []int{25, 0}, []int{added, known})
	var met []string
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		after := ""
		for {
			piece, err := tx.Members(t.Context(), f.connection, after, 7)
			if err != nil || len(piece) == 0 {
				return err
			}
			for _, m := range piece {
				require.Greater(t, m.ID, after)
				require.Equal(t, cura.RosterList, m.Source)
				require.False(t, m.AddedAt.IsZero())
				after, met = m.ID, append(met, m.EHRID)
			}
		}
	}))
	require.ElementsMatch(t, ids, met)
}

func TestAMemberIsAddedOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	added, known := f.addMembers(t, cura.RosterList, "p1", "p2", "p1")
	require.Equal(t, []int{2, 0}, []int{added, known})
	added, known = f.addMembers(t, cura.RosterList, "p2", "p3")
	require.Equal(t, []int{1, 1}, []int{added, known})
	removed, unknown := f.removeMembers(t, "p2", "p9")
	require.Equal(t, []int{1, 1}, []int{removed, unknown})
	removed, unknown = f.removeMembers(t, "p2")
	require.Equal(t, []int{0, 1}, []int{removed, unknown}, "it is off already")
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		n, err := tx.CountMembers(t.Context(), f.connection)
		require.Equal(t, 2, n)
		return err
	}))
	require.Equal(t, []int64{3}, storetest.Query[int64](t, f.db, "SELECT count(*) FROM sync.roster"), "rows stay")
}

func TestARosterChangeIsAuditedInCounts(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	f.addMembers(t, cura.RosterList, "phi-1", "phi-2")
	f.addMembers(t, cura.RosterList, "phi-1")
	f.removeMembers(t, "phi-1")
	var records []audit.Record
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		records, err = tx.AuditSince(t.Context(), f.connection, audit.RosterChanged, time.Time{})
		return err
	}))
	require.Len(t, records, 2, "what changes nothing leaves no record")
	require.Equal(t, []string{"2 0", "0 1"}, storetest.Query[string](t, f.db, `
		SELECT (details->>'added') || ' ' || (details->>'removed') FROM audit.records WHERE kind = 'roster.changed' ORDER BY seq`))
	require.Equal(t, "pat", records[1].Actor)
	require.Empty(t, storetest.Query[string](t, f.db, "SELECT details::text FROM audit.records WHERE details::text LIKE '%phi-%'"))
}

func TestWhoComesBackIsReadWhole(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	f.addMembers(t, cura.RosterList, "p1", "p2")
	before := f.members(t)
	for _, m := range before {
		superuser(t, f.db, `INSERT INTO sync.watermarks (org_id, connection_id, resource_type, partition, watermark) VALUES ($1, $2, 'Observation', $3, now())`,
			f.org, f.connection, m.ID)
	}
	f.addMembers(t, cura.RosterList, "p1")
	require.Equal(t, []int64{2}, storetest.Query[int64](t, f.db, "SELECT count(*) FROM sync.watermarks"), "who is on the roster stays where they are")
	f.removeMembers(t, "p1")
	f.addMembers(t, cura.RosterList, "p1")
	require.Equal(t, before["p1"].ID, f.members(t)["p1"].ID)
	require.Equal(t, []string{before["p2"].ID}, storetest.Query[string](t, f.db, "SELECT partition FROM sync.watermarks"))
}

func TestWhoIsRemovedWaitsForNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	f.addMembers(t, cura.RosterList, "p1", "p2")
	for _, m := range f.members(t) {
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			_, err := tx.OpenDeadLetter(t.Context(), store.DeadLetter{
				Connection: f.connection, Type: cura.Observation, Partition: m.ID, Run: f.run, Fault: fault.Transient, Detail: "the server is out of order", Attempts: 8,
			})
			return err
		}))
	}
	f.removeMembers(t, "p1")
	require.Equal(t, []string{f.members(t)["p2"].ID}, storetest.Query[string](t, f.db, "SELECT partition FROM sync.dead_letters WHERE state = 'open'"))
	f.removeMembers(t, "p2")
	require.Equal(t, []bool{false}, storetest.Query[bool](t, f.db, "SELECT attention FROM directory.connections WHERE connection_id = $1", f.connection))
}

func TestMembersWhomTheEHRDoesNotHaveAreCounted(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	f.addMembers(t, cura.RosterList, "p1", "p2", "p3")
	unknown := func() (n int) {
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			counts, err := tx.RosterCounts(t.Context(), f.connection)
			n = counts.Unknown
			return err
		}))
		return n
	}
	require.Zero(t, unknown())
	members := f.members(t)
	for id, kind := range map[string]fault.Kind{"p1": fault.NotFound, "p2": fault.Transient} {
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			_, err := tx.OpenDeadLetter(t.Context(), store.DeadLetter{
				Connection: f.connection, Type: cura.Patient, Partition: members[id].ID, Run: f.run, Fault: kind, Detail: "it isn't there", Attempts: 1,
			})
			return err
		}))
	}
	require.Equal(t, 1, unknown())
	f.removeMembers(t, "p1")
	require.Zero(t, unknown())
}

func TestAMemberIsFoundByItsIDAndByTheEHRsOwn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	f.applyPatient(t, f.pass(cura.Patient), patient("linked", "100"), patient("both", "200"), patient("gone", "300"))
	f.addMembers(t, cura.RosterList, "listed", "both", "gone")
	f.removeMembers(t, "gone")
	link := storetest.Query[string](t, f.db, "SELECT link_id::text FROM sync.patient_links ORDER BY ehr_id")
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		found, err := tx.MembersByEHRID(t.Context(), f.connection, []string{"linked", "listed", "both", "gone", "nobody"})
		require.NoError(t, err)
		require.Len(t, found, 3, "neither who was removed nor who was never there")
		require.Equal(t, cura.RosterList, found["both"].Source)
		require.Equal(t, link[0], found["both"].ID, "a link gives its id to the member")
		require.Empty(t, found["linked"].Source, "a patient link stands for a member")
		for id, m := range found {
			byID, err := tx.Member(t.Context(), f.connection, m.ID)
			require.NoError(t, err)
			require.Equal(t, id, byID.EHRID)
		}
		_, err = tx.Member(t.Context(), f.connection, link[1])
		require.True(t, fault.Is(err, fault.NotFound), "who was removed is read by no other way either")
		return nil
	}))
}

func TestAGroupFeedsItsOwnMembersAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	f.addMembers(t, cura.RosterList, "listed")
	follow := func(ids ...string) (added, left int) {
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			var err error
			added, left, err = tx.FollowGroup(t.Context(), f.connection, ids)
			return err
		}))
		return added, left
	}
	added, left := follow("listed", "a", "b", "c")
	require.Equal(t, []int{3, 0}, []int{added, left})
	f.addMembers(t, cura.RosterList, "b")
	added, left = follow("c", "d")
	require.Equal(t, []int{1, 1}, []int{added, left}, "a leaves; listed and b were named by a person and stay")
	require.Len(t, f.members(t), 4)
	added, left = follow("c", "d")
	require.Equal(t, []int{0, 0}, []int{added, left})
	added, left = follow("a", "c", "d")
	require.Equal(t, []int{1, 0}, []int{added, left}, "who comes back joins again")
}

func TestPatientsWhoAreLinkedJoinOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	f.applyPatient(t, f.pass(cura.Patient), patient("p1", "100"), patient("p2", "200"))
	join := func() (n int) {
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			var err error
			n, err = tx.JoinLinked(t.Context(), f.connection)
			return err
		}))
		return n
	}
	require.Equal(t, 2, join())
	f.removeMembers(t, "p1")
	require.Zero(t, join(), "who was removed stays away")
	require.Len(t, f.members(t), 1)
}

func TestAnotherOrgsRosterIsOutOfReach(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	f.addMembers(t, cura.RosterList, "p1")
	id := f.members(t)["p1"].ID
	other, err := f.db.AddOrg(t.Context(), "other", "test")
	require.NoError(t, err)
	require.NoError(t, f.db.InOrg(t.Context(), other.ID, func(tx *store.Tx) error {
		_, err := tx.Member(t.Context(), f.connection, id)
		require.True(t, fault.Is(err, fault.NotFound))
		n, err := tx.CountMembers(t.Context(), f.connection)
		require.Zero(t, n)
		return err
	}))
}

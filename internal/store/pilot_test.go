package store_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// rehearsal is a fixture in the sandbox org, with a second shadow beside its own.
func rehearsal(t *testing.T) (first, second *fixture) {
	t.Helper()
	f := newFixture(t, cluster.New(t))
	sandbox, err := f.db.SandboxOf(t.Context(), f.org)
	require.NoError(t, err)
	shadow := func(name string) *fixture {
		s := &fixture{db: f.db, org: sandbox, connection: addConnection(t, f.db, sandbox, name), run: uuid.NewString()}
		s.startRun(t, s.run, cura.RunPilot)
		return s
	}
	return shadow("one"), shadow("two")
}

func TestPurgingOnePilotLeavesTheOther(t *testing.T) {
	t.Parallel()
	first, second := rehearsal(t)
	for _, f := range []*fixture{first, second} {
		p := patient("p1", "100")
		f.applyPatient(t, f.pass(cura.Patient), p)
		f.applyPatient(t, f.pass(cura.Observation), observation("o1", "mg", p.Profile))
		require.NoError(t, f.in(t, func(tx *store.Tx) error { return tx.StartPilot(t.Context(), f.connection, f.run, []string{"p1"}) }))
	}
	left := func() []string {
		return storetest.Query[string](t, first.db, `
			SELECT connection_id::text FROM cura.profiles UNION ALL SELECT connection_id::text FROM labs.observations
			UNION ALL SELECT connection_id::text FROM sync.pilot_patients`)
	}
	purge := func(f *fixture) {
		require.NoError(t, f.in(t, func(tx *store.Tx) error { return tx.PurgePilot(t.Context(), f.connection, "test") }))
	}
	purge(first)
	of := string(second.connection)
	require.Equal(t, []string{of, of, of}, left())
	purge(second)
	require.Empty(t, left())
}

// TestTryPatientTellsWhatTheDatabaseRefuses: what is tried refers to rows of the same transaction.
func TestTryPatientTellsWhatTheDatabaseRefuses(t *testing.T) {
	t.Parallel()
	f, _ := rehearsal(t)
	p := patient("p1", "100")
	good, bad := observation("o1", "mg", p.Profile), observation("o2", "mg\x00", p.Profile)
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		counts, refused, err := tx.TryPatient(t.Context(), f.pass(cura.Patient), "1", []store.Item{p})
		require.NoError(t, err)
		require.Empty(t, refused)
		require.Equal(t, 1, counts.Stored)

		counts, refused, err = tx.TryPatient(t.Context(), f.pass(cura.Observation), "1", []store.Item{good, bad})
		require.NoError(t, err)
		require.Equal(t, []int{1}, refused)
		require.Zero(t, counts)
		bad.Outcome, bad.Reasons = store.Quarantined, []store.Reason{{Path: "Observation", Text: "x"}}
		_, err = tx.ApplyPatient(t.Context(), f.pass(cura.Observation), "1", []store.Item{good, bad})
		return err
	}))
	require.Equal(t, []string{"o1"}, storetest.Query[string](t, f.db, "SELECT ehr_id FROM labs.observations"))
	require.Equal(t, []string{"o2"}, storetest.Query[string](t, f.db, "SELECT ehr_id FROM sync.quarantine"))
	require.Equal(t, []int64{1}, storetest.Query[int64](t, f.db, "SELECT count(*) FROM audit.records WHERE kind = 'resource.rejected'"),
		"what was undone leaves no record")
}

func TestClearingTheChoicesOfAPilotIsRecordedOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		return tx.PutPilotChoices(t.Context(), f.connection, []string{"p1", "p2"}, "test")
	}))
	for range 2 {
		require.NoError(t, f.in(t, func(tx *store.Tx) error { return tx.ClearPilotChoices(t.Context(), f.connection) }))
	}
	require.Equal(t, []int64{0}, storetest.Query[int64](t, f.db, "SELECT count(*) FROM sync.pilot_choices"))
	require.Equal(t, []string{`{"patients":2}`, `{"patients":0}`},
		storetest.Query[string](t, f.db, "SELECT details::text FROM audit.records WHERE details::text LIKE '%patients%' ORDER BY seq"))
}

package store_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func addConnection(t *testing.T, db *storetest.DB, org cura.OrgID, name string) cura.ConnectionID {
	t.Helper()
	c := cura.Connection{
		ID: cura.ConnectionID(uuid.NewString()), OrgID: org, Name: name, BaseURL: "https://ehr.example/fhir", ClientID: "client",
		Scopes: []string{"system/Patient.rs"}, Match: cura.MatchStrategy{By: cura.MatchMRN, System: "urn:mrn"}, EHRProfile: "generic",
		Types: cura.ResourceTypes(),
	}
	require.NoError(t, db.InOrg(t.Context(), org, func(tx *store.Tx) error { return tx.AddConnection(t.Context(), c, "", "test") }))
	return c.ID
}

// fixture is an org with a connection and a run.
type fixture struct {
	db         *storetest.DB
	org        cura.OrgID
	connection cura.ConnectionID
	run        string
}

func newFixture(t *testing.T, db *storetest.DB) *fixture {
	t.Helper()
	org, err := db.AddOrg(t.Context(), "hospital", "test")
	require.NoError(t, err)
	f := &fixture{db: db, org: org.ID, connection: addConnection(t, db, org.ID, "main"), run: uuid.NewString()}
	f.startRun(t, f.run, cura.RunBackfill)
	return f
}

func (f *fixture) startRun(t *testing.T, run string, kind cura.RunKind) {
	t.Helper()
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		return tx.StartRun(t.Context(), store.Run{ID: run, Connection: f.connection, Kind: kind, WorkflowID: "test"})
	}))
}

func (f *fixture) in(t *testing.T, fn func(*store.Tx) error) error {
	t.Helper()
	return f.db.InOrg(t.Context(), f.org, fn)
}

func (f *fixture) pass(typ cura.ResourceType) store.Pass {
	return store.Pass{Connection: f.connection, Type: typ, Run: f.run}
}

func (f *fixture) lease(t *testing.T, pass store.Pass) store.Pass {
	t.Helper()
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		pass, err = tx.TakeLease(t.Context(), pass)
		return err
	}))
	return pass
}

func (f *fixture) apply(t *testing.T, pass store.Pass, advance store.Advance, items ...store.Item) (cura.Counts, error) {
	t.Helper()
	var counts cura.Counts
	err := f.in(t, func(tx *store.Tx) error {
		var err error
		counts, err = tx.ApplyPage(t.Context(), pass, "1", items, advance)
		return err
	})
	return counts, err
}

func (f *fixture) applyPatient(t *testing.T, pass store.Pass, items ...store.Item) {
	t.Helper()
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		_, err := tx.ApplyPatient(t.Context(), pass, "1", items)
		return err
	}))
}

func item(id, content string) store.Item {
	raw := []byte(content)
	return store.Item{EHRID: id, Hash: sha256.Sum256(raw), Raw: raw, RawBytes: int64(len(raw)), Outcome: store.Stored}
}

func patient(id, mrn string) store.Item {
	it := item(id, "patient "+id)
	it.Profile, it.MatchedBy = cura.ProfileID(uuid.NewString()), "new"
	it.Record = cura.Record{Type: cura.Patient, EHRID: id, Profile: &cura.Profile{
		Name:        &cura.Name{Display: "A B", Family: "B", Given: []string{"A"}},
		Identifiers: []cura.Identifier{{System: "urn:mrn", Value: mrn}},
	}}
	return it
}

func observation(id, value string, profile cura.ProfileID) store.Item {
	it := item(id, "observation "+id+value)
	it.Profile = profile
	it.Record = cura.Record{Type: cura.Observation, EHRID: id, PatientEHRID: "p1", Observation: &cura.LabObservation{
		Status: "final", Value: &cura.ObservationValue{Kind: "quantity", Quantity: &cura.Quantity{Value: "5.40", Unit: value}},
	}}
	return it
}

var serverTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestAPageIsWrittenWholeAndTheWatermarkMovesWithTheLast(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	pass := f.lease(t, f.pass(cura.Patient))
	p1, p2 := patient("p1", "100"), patient("p2", "200")

	counts, err := f.apply(t, pass, store.Advance{Cursor: &store.Cursor{Next: "link-2", Candidate: &serverTime}}, p1)
	require.NoError(t, err)
	require.Equal(t, cura.Counts{Served: 1, Landed: 1, Stored: 1}, counts)
	require.Empty(t, storetest.Query[time.Time](t, db, "SELECT watermark FROM sync.watermarks"), "not before the last page")
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		c, err := tx.Cursor(t.Context(), pass)
		require.Equal(t, "link-2", c.Next)
		require.True(t, serverTime.Equal(*c.Candidate))
		return err
	}))

	_, err = f.apply(t, pass, store.Advance{Candidate: serverTime}, p2)
	require.NoError(t, err)
	require.Equal(t, []time.Time{serverTime}, utc(storetest.Query[time.Time](t, db, "SELECT watermark FROM sync.watermarks")))
	require.Empty(t, storetest.Query[string](t, db, "SELECT next_link FROM sync.cursors"))
	require.Equal(t, []string{"100", "200"}, storetest.Query[string](t, db, "SELECT value FROM cura.profile_identifiers ORDER BY value"))
	require.Equal(t, []int64{2}, storetest.Query[int64](t, db, "SELECT count(*) FROM sync.patient_links"))
}

func utc(times []time.Time) []time.Time {
	for i := range times {
		times[i] = times[i].UTC()
	}
	return times
}

func TestAWatermarkNeverMovesBack(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	pass := f.lease(t, f.pass(cura.Patient))
	for _, at := range []time.Time{serverTime, serverTime.Add(-time.Hour)} {
		_, err := f.apply(t, pass, store.Advance{Candidate: at})
		require.NoError(t, err)
	}
	require.Equal(t, []time.Time{serverTime}, utc(storetest.Query[time.Time](t, db, "SELECT watermark FROM sync.watermarks")))
}

func TestAVersionThatHasLandedIsLookedAtAgainWithoutLandingTwice(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	p := patient("p1", "100")
	f.applyPatient(t, f.pass(cura.Patient), p)
	pass := f.lease(t, f.pass(cura.Observation))
	early := observation("o1", "mmol/L", p.Profile)
	early.Outcome, early.WaitsForPatient = store.InReview, "p1"
	_, err := f.apply(t, pass, store.Advance{Cursor: &store.Cursor{Next: "link-2", Candidate: &serverTime}}, early)
	require.NoError(t, err)
	var head store.Head
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		heads, err := tx.Heads(t.Context(), f.connection, cura.Observation, []string{"o1", "o2"})
		require.Len(t, heads, 1)
		head = heads["o1"]
		return err
	}))
	require.Equal(t, "p1", head.WaitsForPatient)
	again := observation("o1", "mmol/L", p.Profile)
	again.Landing = head.Landing
	counts, err := f.apply(t, pass, store.Advance{Candidate: serverTime}, again)
	require.NoError(t, err)
	require.Equal(t, cura.Counts{Served: 1, Stored: 1}, counts)
	require.Equal(t, []int64{1}, storetest.Query[int64](t, db, "SELECT count(*) FROM sync.landing WHERE resource_type = 'Observation'"))
	require.Equal(t, []string{"5.40"}, storetest.Query[string](t, db, "SELECT value FROM labs.observations"), "decimals keep their digits")
}

func TestQuarantineAndAuditGiveTheSameReason(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	pass := f.lease(t, f.pass(cura.Observation))
	bad := item("o1", "bad")
	bad.Outcome, bad.Reasons = store.Quarantined, []store.Reason{{Path: "Observation.status", Text: "is required"}}
	counts, err := f.apply(t, pass, store.Advance{Candidate: serverTime}, bad)
	require.NoError(t, err)
	require.Equal(t, cura.Counts{Served: 1, Landed: 1, Quarantined: 1}, counts)
	want := `[{"path":"Observation.status","text":"is required"}]`
	require.Equal(t, []string{want}, storetest.Query[string](t, db, "SELECT reasons::text FROM sync.quarantine WHERE closed_at IS NULL"))
	require.Equal(t, []string{want}, storetest.Query[string](t, db, "SELECT details->>'reasons' FROM audit.records WHERE kind = $1", audit.ResourceRejected))

	// A good version closes the quarantine.
	p := patient("p1", "100")
	f.applyPatient(t, f.pass(cura.Patient), p)
	_, err = f.apply(t, pass, store.Advance{Candidate: serverTime}, observation("o1", "g/L", p.Profile))
	require.NoError(t, err)
	require.Empty(t, storetest.Query[string](t, db, "SELECT reasons::text FROM sync.quarantine WHERE closed_at IS NULL"))
}

func TestALeaseKeepsOthersOutAndAStaleReaderFromCommitting(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	first := f.lease(t, f.pass(cura.Observation))

	other := store.Pass{Connection: f.connection, Type: cura.Observation, Run: uuid.NewString()}
	err := f.in(t, func(tx *store.Tx) error {
		_, err := tx.TakeLease(t.Context(), other)
		return err
	})
	require.True(t, fault.Is(err, fault.Busy), "%v", err)

	// The same run takes over from itself, as after a crash; the reader before can't commit any more.
	second := f.lease(t, f.pass(cura.Observation))
	require.Greater(t, second.Fence, first.Fence)
	_, err = f.apply(t, first, store.Advance{Candidate: serverTime})
	require.True(t, fault.Is(err, fault.Busy), "%v", err)
	_, err = f.apply(t, second, store.Advance{Candidate: serverTime})
	require.NoError(t, err)

	require.NoError(t, f.in(t, func(tx *store.Tx) error { return tx.ReleaseLease(t.Context(), second) }))
	f.startRun(t, other.Run, cura.RunIncremental)
	f.lease(t, other)
}

func TestADeadLetterIsOneUntilItsPassComesToAnEnd(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	letter := store.DeadLetter{Connection: f.connection, Type: cura.Observation, Run: f.run, Fault: fault.Transient, Detail: "503", Attempts: 8}
	second := uuid.NewString()
	f.startRun(t, second, cura.RunIncremental)
	for _, run := range []string{f.run, f.run, second} {
		letter.Run = run
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			_, err := tx.OpenDeadLetter(t.Context(), letter)
			return err
		}))
	}
	require.Equal(t, []int32{2}, storetest.Query[int32](t, db, "SELECT times FROM sync.dead_letters"), "a retried report counts once a run")
	require.Equal(t, []bool{true}, storetest.Query[bool](t, db, "SELECT attention FROM directory.connections WHERE connection_id = $1", f.connection))

	pass := f.lease(t, f.pass(cura.Observation))
	_, err := f.apply(t, pass, store.Advance{Candidate: serverTime})
	require.NoError(t, err)
	require.Equal(t, []string{"recovered"}, storetest.Query[string](t, db, "SELECT state FROM sync.dead_letters"))
	require.Equal(t, []bool{false}, storetest.Query[bool](t, db, "SELECT attention FROM directory.connections WHERE connection_id = $1", f.connection))
}

func TestAuditRecordsAreNumberedWithoutHolesAndOnlyForWhatCommitted(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	failed := f.in(t, func(tx *store.Tx) error {
		tx.Audit(audit.Record{Kind: audit.OperatorCommand, Outcome: audit.Success})
		return fault.New("testing", fault.Config, "rolled back")
	})
	require.Error(t, failed)
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		tx.Audit(audit.Record{Kind: audit.OperatorCommand, Outcome: audit.Success})
		return nil
	}))
	require.Equal(t, []bool{true}, storetest.Query[bool](t, db, `
		SELECT array_agg(r.seq ORDER BY r.seq) = array(SELECT generate_series(1, max(h.seq))) FROM audit.records r JOIN audit.heads h USING (org_id)
		WHERE org_id = $1 GROUP BY org_id`, f.org))
	require.Equal(t, []int64{1}, storetest.Query[int64](t, db, "SELECT count(*) FROM audit.records WHERE kind = $1", audit.OperatorCommand))
}

func TestAnotherRunsPassDoesntDisturbTheCursor(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	backfill := f.lease(t, f.pass(cura.Observation))
	_, err := f.apply(t, backfill, store.Advance{Cursor: &store.Cursor{Next: "link-2", Candidate: &serverTime}})
	require.NoError(t, err)
	require.NoError(t, f.in(t, func(tx *store.Tx) error { return tx.ReleaseLease(t.Context(), backfill) }))

	other := store.Pass{Connection: f.connection, Type: cura.Observation, Run: uuid.NewString()}
	f.startRun(t, other.Run, cura.RunIncremental)
	other = f.lease(t, other)
	for _, next := range []*store.Cursor{{Next: "other-2", Candidate: &serverTime}, nil} {
		_, err = f.apply(t, other, store.Advance{Cursor: next, Candidate: serverTime})
		require.NoError(t, err)
	}
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		c, err := tx.Cursor(t.Context(), backfill)
		require.Equal(t, "link-2", c.Next, "a sync between two chunks leaves the backfill where it was")
		return err
	}))
}

func TestARunIsFinishedOnce(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	for _, outcome := range []string{"incomplete", "complete"} {
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			run, err := tx.FinishRun(t.Context(), f.run, audit.RunDetails{Outcome: outcome})
			require.Equal(t, "incomplete", run.Outcome, "an answer that got lost is given again")
			return err
		}))
	}
	require.Equal(t, []int64{1}, storetest.Query[int64](t, db, "SELECT count(*) FROM audit.records WHERE kind = $1", audit.RunFinished))
}

func TestWhatIsTakenOffAConnectionWaitsForNobody(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		if err := tx.SwitchTypeOff(t.Context(), f.connection, cura.Consent, "403"); err != nil {
			return err
		}
		_, err := tx.OpenDeadLetter(t.Context(), store.DeadLetter{Connection: f.connection, Type: cura.Encounter, Run: f.run, Fault: fault.Transient, Attempts: 1})
		return err
	}))
	require.Len(t, f.attention(t), 2)
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		c, err := tx.Connection(t.Context(), f.connection)
		if err != nil {
			return err
		}
		c.Types = []cura.ResourceType{cura.Patient, cura.Observation}
		return tx.EditConnection(t.Context(), c.Connection, "test")
	}))
	require.Empty(t, f.attention(t))
	require.Equal(t, []bool{false}, storetest.Query[bool](t, db, "SELECT attention FROM directory.connections WHERE connection_id = $1", f.connection))
}

func (f *fixture) attention(t *testing.T) []store.Waiting {
	t.Helper()
	var waiting []store.Waiting
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		waiting, err = tx.Attention(t.Context())
		return err
	}))
	return waiting
}

func TestALiveConnectionWhoseSyncsDontComeWaitsForAPerson(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		if err := tx.SetSyncInterval(t.Context(), f.connection, 10*time.Minute); err != nil {
			return err
		}
		return tx.SetStanding(t.Context(), f.connection, store.Standing{Phase: cura.PhaseLive, Health: cura.HealthOK, WaitsFor: cura.WaitsForNobody}, "test")
	}))
	require.Empty(t, f.attention(t))
	passed := func(minutes int) {
		storetest.Query[string](t, db, "UPDATE sync.connections SET updated_at = now() - $1 * interval '1 minute' RETURNING name", minutes)
	}
	passed(39)
	require.Empty(t, f.attention(t))
	passed(41)
	waiting := f.attention(t)
	require.Len(t, waiting, 1)
	require.Equal(t, "behind", waiting[0].What)

	run := uuid.NewString()
	f.startRun(t, run, cura.RunIncremental)
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		_, err := tx.FinishRun(t.Context(), run, audit.RunDetails{Outcome: "complete"})
		return err
	}))
	require.Empty(t, f.attention(t), "a sync has come through")
}

func TestAnotherServersWatermarksAreForgotten(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	pass := f.lease(t, f.pass(cura.Patient))
	_, err := f.apply(t, pass, store.Advance{Candidate: serverTime})
	require.NoError(t, err)
	edit := func(base string) {
		require.NoError(t, f.in(t, func(tx *store.Tx) error {
			c, err := tx.Connection(t.Context(), f.connection)
			if err != nil {
				return err
			}
			c.BaseURL = base
			return tx.EditConnection(t.Context(), c.Connection, "test")
		}))
	}
	edit("https://ehr.example/fhir")
	require.Len(t, storetest.Query[time.Time](t, db, "SELECT watermark FROM sync.watermarks"), 1)
	edit("https://elsewhere.example/fhir")
	require.Empty(t, storetest.Query[time.Time](t, db, "SELECT watermark FROM sync.watermarks"))
}

// TestWhatNoForeignKeyGuardsHolds: 00011_hot_path.sql leaves it to the transaction that every row's landing and every landing's
// run are there.
func TestWhatNoForeignKeyGuardsHolds(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	p := patient("p1", "100")
	f.applyPatient(t, f.pass(cura.Patient), p)
	bad := item("o2", "bad")
	bad.Outcome, bad.Reasons = store.Quarantined, []store.Reason{{Path: "Observation.status", Text: "is required"}}
	pass := f.lease(t, f.pass(cura.Observation))
	for _, unit := range []string{"mmol/L", "g/L"} {
		_, err := f.apply(t, pass, store.Advance{Candidate: serverTime}, observation("o1", unit, p.Profile), bad)
		require.NoError(t, err)
	}
	for _, table := range []string{"sync.resources", "labs.observations", "cura.profiles", "sync.quarantine"} {
		require.Equal(t, []int64{0}, storetest.Query[int64](t, db, `
			SELECT count(*) FROM `+table+` t LEFT JOIN sync.landing l USING (org_id, landing_id) WHERE l.landing_id IS NULL OR l.ehr_id <> t.ehr_id`), table)
	}
	require.Equal(t, []int64{0}, storetest.Query[int64](t, db, "SELECT count(*) FROM sync.landing l LEFT JOIN sync.runs r USING (org_id, run_id) WHERE r.run_id IS NULL"))
	orphan := observation("o3", "mmol/L", cura.ProfileID(uuid.NewString()))
	_, err := f.apply(t, pass, store.Advance{Candidate: serverTime}, orphan)
	require.ErrorIs(t, err, store.ErrSettledMeanwhile, "whose a record is, the link says")
	err = f.in(t, func(tx *store.Tx) error {
		_, err := tx.ApplyPatient(t.Context(), pass, "1", []store.Item{orphan})
		return err
	})
	require.ErrorContains(t, err, "profile_id_fkey", "and a foreign key guards it besides")
}

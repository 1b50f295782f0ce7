package activities_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// have are the ids that Cura has of a type: tombstones apart, unless the EHR still has what it has withdrawn.
func (h *hospital) have(t *testing.T, typ string) []string {
	t.Helper()
	return storetest.Query[string](t, h.db, `
		SELECT ehr_id FROM sync.resources WHERE resource_type = $1 AND (gone_at IS NULL OR gone_reason = 'entered-in-error') AND connection_id = $2 ORDER BY ehr_id COLLATE "C"`,
		typ, h.target.Connection)
}

// agrees fails unless Cura has exactly what the source has, of every type.
func (h *hospital) agrees(t *testing.T) {
	t.Helper()
	source := h.source(t)
	for _, typ := range cura.ResourceTypes() {
		want := slices.Sorted(maps.Keys(source[string(typ)]))
		if got := h.have(t, string(typ)); len(want)+len(got) > 0 {
			require.Equal(t, want, got, typ)
		}
	}
}

func TestARosterIsReadPatientByPatient(t *testing.T) {
	t.Parallel()
	for _, strategy := range []cura.Strategy{cura.StrategyRoster, cura.StrategySnapshot} {
		t.Run(string(strategy), func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{strategy: strategy, roster: true})
			served := h.ehr.Counts()
			for typ, counts := range h.pullAll(t, cura.RunBackfill) {
				require.Equal(t, served[string(typ)], counts.Stored, typ)
				require.True(t, counts.Balanced(), typ)
			}
			h.agrees(t)
			_, err := h.ehr.Rehearse(t.Context())
			require.NoError(t, err)
			var sum cura.Counts
			for _, counts := range h.pullAll(t, cura.RunIncremental) {
				sum = sum.Plus(counts)
			}
			require.Positive(t, sum.Landed)
			require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.watermarks WHERE partition = ''"), "each patient has a watermark of their own")
		})
	}
}

func TestANewMemberIsReadWhole(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{strategy: cura.StrategyRoster})
	all := h.patients(t)
	h.follow(t, all[1:]...)
	h.pullAll(t, cura.RunBackfill)
	require.NotContains(t, h.have(t, "Patient"), all[0])
	h.follow(t, all[0])
	h.pullAll(t, cura.RunIncremental)
	h.agrees(t)
}

func TestOnlyAConfirmedAbsenceMakesATombstone(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{strategy: cura.StrategySnapshot, roster: true})
	h.pullAll(t, cura.RunBackfill)
	observations := slices.Sorted(maps.Keys(h.source(t)["Observation"]))
	gone := observations[0]
	require.NoError(t, h.ehr.Delete("Observation", gone))
	h.pullAll(t, cura.RunIncremental)
	require.Contains(t, h.have(t, "Observation"), gone, "one read without it isn't proof")
	h.pullAll(t, cura.RunIncremental)
	require.NotContains(t, h.have(t, "Observation"), gone)
	h.agrees(t)
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM labs.observations WHERE ehr_id = $1 AND gone_reason = 'gone'", gone), "the row stays, with the reason")
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM audit.records WHERE kind = 'resources.gone' AND details->>'reason' = 'gone'"))
}

func TestWhatComesBackIsNoTombstoneAnyMore(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{strategy: cura.StrategySnapshot, roster: true})
	h.pullAll(t, cura.RunBackfill)
	id := slices.Sorted(maps.Keys(h.source(t)["Observation"]))[0]
	raw := h.source(t)["Observation"][id]
	require.NoError(t, h.ehr.Delete("Observation", id))
	h.pullAll(t, cura.RunIncremental)
	h.pullAll(t, cura.RunIncremental)
	require.NotContains(t, h.have(t, "Observation"), id)
	require.NoError(t, h.ehr.Put(raw))
	h.pullAll(t, cura.RunIncremental)
	h.agrees(t)
	require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM labs.observations WHERE ehr_id = $1 AND gone_at IS NOT NULL", id))
}

func TestWhatTheEHRHasWithdrawnIsATombstone(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	patient := h.patients(t)[0]
	put := func(status string) {
		require.NoError(t, h.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"o","status":"`+status+`","code":{"text":"x"},"subject":{"reference":"Patient/`+patient+`"}}`)))
	}
	reasons := func() []string {
		return storetest.Query[string](t, h.db, "SELECT coalesce(gone_reason, '') FROM labs.observations WHERE ehr_id = 'o'")
	}
	put("final")
	h.pullAll(t, cura.RunBackfill)
	require.Equal(t, []string{""}, reasons())
	put("entered-in-error")
	h.pullAll(t, cura.RunIncremental)
	require.Equal(t, []string{"entered-in-error"}, reasons())
	h.pullAll(t, cura.RunBackfill)
	require.Equal(t, []string{"entered-in-error"}, reasons(), "the same version again changes nothing")
	put("corrected")
	h.pullAll(t, cura.RunIncremental)
	require.Equal(t, []string{""}, reasons())
}

func TestAPatientWhoCantBeReadStopsNobodyElse(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{strategy: cura.StrategySnapshot, roster: true, sandbox: sandbox.Config{Patients: 8}})
	bad := h.patients(t)[3]
	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{Poison: []string{"Patient/" + bad}}))
	id := h.begin(t, cura.RunBackfill)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
	require.NoError(t, err)
	require.Len(t, h.have(t, "Patient"), 7)
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM sync.dead_letters WHERE state = 'open' AND partition <> ''"))
	finished, err := run[activities.FinishResult](t, h, h.a.FinishRun, activities.FinishInput{Target: h.target, Run: id, Kind: cura.RunBackfill})
	require.NoError(t, err)
	require.Equal(t, "incomplete", finished.Outcome)

	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{}))
	h.pullAll(t, cura.RunIncremental)
	h.agrees(t)
	require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM sync.dead_letters WHERE state = 'recovered'"))
}

func TestAMemberWhomTheEHRDoesntKnowIsToldOf(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{strategy: cura.StrategyRoster, roster: true})
	h.follow(t, "nobody")
	id := h.begin(t, cura.RunBackfill)
	_, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Patient, Full: true})
	require.NoError(t, err)
	require.Equal(t, []string{"reading a roster member: the EHR has no such patient"}, storetest.Query[string](t, h.db, "SELECT detail FROM sync.dead_letters"))
}

func TestSinglePatientsAreReadAtOnce(t *testing.T) {
	t.Parallel()
	for _, strategy := range []cura.Strategy{cura.StrategySystem, cura.StrategyRoster} {
		t.Run(string(strategy), func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{strategy: strategy, roster: true, config: func(c *config.Config) { c.Overlap = 0 }})
			h.pullAll(t, cura.RunBackfill)
			before := storetest.Query[string](t, h.db, "SELECT resource_type || partition || watermark FROM sync.watermarks WHERE partition = '' ORDER BY 1")
			patient := h.patients(t)[0]
			for i := range 2 {
				require.NoError(t, h.ehr.Put(json.RawMessage(fmt.Sprintf(
					`{"resourceType":"Observation","id":"new-%d","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/%s"}}`, i, h.patients(t)[i]))))
			}
			members := h.follow(t, patient)
			id := h.begin(t, cura.RunPatient)
			counts, err := h.pull(t, activities.PullInput{Run: id, Type: cura.Observation, Patients: members, Ahead: true})
			require.NoError(t, err)
			require.Equal(t, 1, counts.Landed, "of this patient alone")
			require.Contains(t, h.have(t, "Observation"), "new-0")
			require.NotContains(t, h.have(t, "Observation"), "new-1")
			require.Equal(t, before, storetest.Query[string](t, h.db, "SELECT resource_type || partition || watermark FROM sync.watermarks WHERE partition = '' ORDER BY 1"))
		})
	}
}

func TestWhoGoesAheadHasTheOthersStepAside(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{roster: true, config: func(c *config.Config) { c.ChunkResources = 1 }})
	backfill := h.begin(t, cura.RunBackfill)
	first := activities.PullInput{Target: h.target, Run: backfill, Type: cura.Observation, Full: true}
	_, err := run[activities.PullResult](t, h, h.a.PullType, first)
	require.NoError(t, err)
	// Somebody waits: the backfill's next chunk finds the lease wanted.
	require.Len(t, storetest.Query[string](t, h.db, "UPDATE sync.leases SET wanted_by = 'another', wanted_until = now() + interval '1 minute' RETURNING holder"), 1)
	_, err = run[activities.PullResult](t, h, h.a.PullType, first)
	require.Equal(t, fault.Busy, kindOf(t, err))
}

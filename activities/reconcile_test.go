package activities_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// reconcile compares a type to the end, as the workflow would.
func (h *hospital) reconcile(t *testing.T, typ cura.ResourceType, repair bool) cura.Reconciliation {
	t.Helper()
	in := activities.ReconcileInput{Target: h.target, Run: h.begin(t, cura.RunReconcile), Type: typ, Repair: repair}
	for range 100 {
		result, err := run[activities.ReconcileResult](t, h, h.a.ReconcileType, in)
		require.NoError(t, err)
		if result.Done {
			return result.Reconciliation
		}
	}
	require.Fail(t, "the comparison never ends")
	return cura.Reconciliation{}
}

func TestAComparisonFindsWhatDiffersAndRepairMendsIt(t *testing.T) {
	t.Parallel()
	for _, strategy := range []cura.Strategy{cura.StrategySystem, cura.StrategyRoster, cura.StrategySnapshot} {
		t.Run(string(strategy), func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{strategy: strategy, roster: true, config: func(c *config.Config) { c.ChunkResources = 30 }})
			h.pullAll(t, cura.RunBackfill)
			n := int64(h.ehr.Counts()["Observation"])
			clean := h.reconcile(t, cura.Observation, false)
			require.Equal(t, []int64{n, n, 0, 0, 0}, []int64{clean.Source, clean.Cura, clean.Missing, clean.Extra, clean.Changed})

			ids := h.have(t, "Observation")
			require.NoError(t, h.ehr.Delete("Observation", ids[0]))
			patient := h.patients(t)[0]
			put := func(id, text string) {
				require.NoError(t, h.ehr.Put(json.RawMessage(
					`{"resourceType":"Observation","id":"`+id+`","status":"final","code":{"text":"`+text+`"},"subject":{"reference":"Patient/`+patient+`"}}`)))
			}
			put("added", "x")
			put(ids[1], "changed")

			found := h.reconcile(t, cura.Observation, false)
			require.Equal(t, []int64{n, n, 1, 1, 1, 0}, []int64{found.Source, found.Cura, found.Missing, found.Extra, found.Changed, found.Repaired})
			kinds := storetest.Query[string](t, h.db, "SELECT kind FROM sync.differences ORDER BY kind")
			require.Equal(t, []string{"changed", "extra", "missing"}, kinds)

			mended := h.reconcile(t, cura.Observation, true)
			require.Equal(t, []int64{n, n, 0, 0, 0, 3}, []int64{mended.Source, mended.Cura, mended.Missing, mended.Extra, mended.Changed, mended.Repaired})
			h.agrees(t)
			require.EqualValues(t, 0, h.stored(t, "SELECT count(*) FROM sync.seen"))
			require.EqualValues(t, 1, h.stored(t, "SELECT count(*) FROM labs.observations WHERE gone_reason = 'gone'"))
		})
	}
}

func TestWhatIsServedOtherwiseIsTakenAsItIsServed(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	h.pullAll(t, cura.RunBackfill)
	require.NoError(t, h.ehr.SetFaults(sandbox.Faults{Malformed: map[string]float64{"Encounter": 0.2}}))
	require.Positive(t, h.reconcile(t, cura.Encounter, false).Changed)
	mended := h.reconcile(t, cura.Encounter, true)
	require.Zero(t, mended.Changed)
	require.Equal(t, mended.Repaired, h.stored(t, "SELECT count(*) FROM sync.quarantine WHERE closed_at IS NULL AND resource_type = 'Encounter'"))
}

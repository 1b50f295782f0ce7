package e2e

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// reviews are what `starter reviews list -o json` prints.
func (r *rig) reviews(flags ...string) (open []store.Review) {
	r.t.Helper()
	require.NoError(r.t, json.Unmarshal([]byte(r.ok(append([]string{"reviews", "list", "main", "-o", "json"}, flags...)...)), &open))
	return open
}

// TestWhatAPersonDecidesIsAppliedAndUndone, from the EHR to the tables and with the commands that a person types: a record that may
// be another patient's, a merge and its taking back, and a version that may be older than what Cura has changed.
func TestWhatAPersonDecidesIsAppliedAndUndone(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 12})
	r.worker("")
	_, code := r.onboard()
	require.Zero(t, code)
	var patient map[string]any
	require.NoError(t, json.Unmarshal(r.resources("Patient")[0], &patient))
	first := idOf(t, r.resources("Patient")[0])
	put := func(resource map[string]any) {
		raw, err := json.Marshal(resource)
		require.NoError(t, err)
		require.NoError(t, r.ehr.Put(raw))
		r.ok("sync", "main")
	}
	profileOf := func(ehrID string) string {
		ids := storetest.Query[string](t, r.db, "SELECT profile_id::text FROM sync.patient_links WHERE ehr_id = $1 AND org_id IN (SELECT org_id FROM directory.orgs WHERE kind = 'live')", ehrID)
		require.Len(t, ids, 1)
		return ids[0]
	}
	decide := func(kind cura.ReviewKind, flags ...string) string {
		open := r.reviews()
		require.Len(t, open, 1)
		require.Equal(t, kind, open[0].Kind)
		shown := r.ok("reviews", "show", open[0].ID)
		require.Contains(t, shown, "starter reviews resolve "+open[0].ID)
		require.Contains(t, r.ok(append([]string{"reviews", "resolve", open[0].ID}, flags...)...), "applied")
		require.Empty(t, r.reviews())
		return open[0].ID
	}

	double := maps.Clone(patient)
	double["id"] = "double"
	put(double)
	decide(cura.ReviewMatch, "--new")
	own := profileOf("double")
	require.NotEqual(t, profileOf(first), own)

	double["active"] = false
	double["link"] = []any{map[string]any{"type": "replaced-by", "other": map[string]any{"reference": "Patient/" + first}}}
	put(double)
	merge := decide(cura.ReviewMerge, "--merge")
	require.Equal(t, profileOf(first), profileOf("double"))
	_, stderr, code := r.starter("reviews", "resolve", merge, "--merge")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "already decided by asserted:tester")

	r.ok("reviews", "reopen", merge)
	decide(cura.ReviewSplit, "--link", own)
	require.Equal(t, own, profileOf("double"))

	require.NoError(t, r.ehr.SetFaults(sandbox.Faults{Untimed: []string{"Patient/" + first}}))
	r.ok("profile", "set", "hospital", profileOf(first), "--phone", "+1-555-0100")
	patient["telecom"] = []any{map[string]any{"system": "phone", "value": "+1-555-0199"}}
	put(patient)
	decide(cura.ReviewConflict, "--keep", "cura")
	require.Contains(t, r.ok("profile", "show", "hospital", profileOf(first)), "+1-555-0100")

	var states []store.ReviewState
	for _, review := range r.reviews("--all") {
		states = append(states, review.State)
	}
	require.Equal(t, []store.ReviewState{store.ReviewApplied, store.ReviewApplied, store.ReviewApplied, store.ReviewApplied}, states)
}

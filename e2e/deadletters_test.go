package e2e

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
)

func (r *rig) deadLetters() []store.DeadLetter {
	r.t.Helper()
	var letters []store.DeadLetter
	require.NoError(r.t, json.Unmarshal([]byte(r.ok("dead-letters", "list", "--output", "json")), &letters))
	return letters
}

func TestWhatASyncGaveUpIsReplayedOrDiscarded(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 12})
	r.worker("")
	out, code := r.onboard()
	require.Zero(t, code, out)
	// The schedule would recover the letters before a person could look at them.
	require.NoError(t, r.temporal.ScheduleClient().GetHandle(t.Context(), r.schedule()).Delete(t.Context()))

	require.NoError(t, r.ehr.SetFaults(sandbox.Faults{FailNext: []sandbox.FailNext{
		{Count: 1000, Status: 500, Type: "Observation"}, {Count: 1000, Status: 500, Type: "Encounter"},
	}}))
	_, stderr, code := r.starter("sync", "main")
	require.Equal(t, 1, code, "the sync ends incomplete: %s", stderr)
	letters := r.deadLetters()
	require.Len(t, letters, 2)
	stdout, _, code := r.starter("attention")
	require.Equal(t, 3, code)
	require.Contains(t, stdout, "starter dead-letters replay "+string(letters[0].ID))
	require.Contains(t, r.ok("dead-letters", "show", string(letters[0].ID)), "500")

	_, _, code = r.starter("dead-letters", "replay", string(letters[0].ID))
	require.Equal(t, 1, code, "the EHR still fails")
	require.Len(t, r.deadLetters(), 2)

	require.NoError(t, r.ehr.SetFaults(sandbox.Faults{}))
	_, err := r.ehr.Rehearse(t.Context())
	require.NoError(t, err)
	r.ok("dead-letters", "replay", string(letters[0].ID))
	require.Len(t, r.deadLetters(), 1)
	require.Equal(t, 1, r.count("sync.dead_letters WHERE state = 'replayed'"))
	r.ok("dead-letters", "discard", string(letters[1].ID), "--reason", "the next sync reads it")
	require.Empty(t, r.deadLetters())

	r.ok("sync", "main")
	require.Equal(t, r.ehr.Counts()["Encounter"], r.count("cura.visits"))
	require.Equal(t, r.ehr.Counts()["Observation"], r.count("labs.observations")+r.count("sync.quarantine WHERE closed_at IS NULL"))
	_, _, code = r.starter("attention")
	require.Zero(t, code)
}

func TestAForbiddenTypeIsSwitchedOffAndComesBackByItself(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 12, Faults: sandbox.Faults{RefuseTypes: []string{"Consent"}}})
	r.worker("")
	out, code := r.onboard()
	require.Zero(t, code, "the rest goes live: %s", out)
	require.Zero(t, r.count("cura.consent_log"))
	stdout, _, code := r.starter("attention")
	require.Equal(t, 3, code)
	require.Contains(t, stdout, "Consent is switched off")

	require.NoError(t, r.ehr.SetFaults(sandbox.Faults{}))
	r.ok("sync", "main")
	r.requireSameAsEHR()
	_, _, code = r.starter("attention")
	require.Zero(t, code)
}

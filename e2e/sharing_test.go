package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/sandbox"
)

// TestALargeBackfillStarvesNobody: a hospital whose EHR is slow is being read, with a worker that has two slots for long
// reading; another hospital comes, is onboarded and read whole, while the first one still is.
func TestALargeBackfillStarvesNobody(t *testing.T) {
	t.Parallel()
	large := newRig(t, sandbox.Config{Patients: 200, Faults: sandbox.Faults{LatencyMS: 100}},
		"CURA_BULK_SLOTS=2", "CURA_ORG_SLOTS=1", "CURA_CHUNK_TIME=1s", "CURA_PAGE_SIZE=5")
	small, err := sandbox.Start(t.Context(), sandbox.Config{Patients: 10, Seed: 7})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, small.Close()) })
	large.worker("")
	large.ok("onboard", "main", "--monitor", "72h", "--interval", "1h")
	reading := func() bool {
		return large.count("sync.runs r JOIN sync.connections c USING (org_id, connection_id) WHERE c.name = 'main' AND r.kind = 'backfill' AND r.outcome = 'running'") == 1
	}
	require.Eventually(t, reading, 2*time.Minute, 50*time.Millisecond)

	large.ok("org", "add", "small")
	large.ok("connection", "add", "--org", "small", "--name", "second", "--base-url", small.BaseURL(), "--client-id", small.ClientID(),
		"--secret-file", large.write("small-secret", small.ClientSecret()), "--ca-file", large.write("small-ca.pem", string(small.CAPEM())),
		"--match", "mrn:"+small.MRNSystem())
	large.ok("onboard", "second", "--monitor", "72h", "--interval", "1h")
	there := func() bool {
		return large.count("sync.connections WHERE name = 'second' AND phase = 'monitoring'") == 1
	}
	require.Eventually(t, func() bool { return there() || !reading() }, 3*time.Minute, 50*time.Millisecond)
	require.True(t, there(), "the small hospital is read whole before the large one is")

	// A person who asks for one patient of the large hospital doesn't wait for its backfill either.
	patient := idOf(t, large.resources("Patient")[0])
	require.True(t, reading())
	large.ok("sync", "main", "--patients", large.write("patients", patient+"\n"))
	require.True(t, reading(), "the one patient came first")
	require.Equal(t, 1, large.count("sync.runs WHERE kind = 'patient' AND outcome = 'complete'"))
}

func TestAPausedConnectionIsLeftAloneUntilItIsResumed(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 10})
	r.worker("")
	require.Contains(t, r.ok("pause", "main", "--reason", "the hospital moves its server"), "paused")
	r.ok("onboard", "main", "--monitor", "72h", "--interval", "1h")
	require.Eventually(t, func() bool {
		return r.count("sync.runs WHERE kind = 'backfill' AND outcome = 'running'") == 1
	}, 2*time.Minute, 50*time.Millisecond)
	require.Contains(t, r.ok("connection", "show", "main"), "the hospital moves its server")
	require.Zero(t, r.count("sync.run_counts JOIN sync.runs USING (org_id, run_id) WHERE kind = 'backfill'"))
	r.ok("resume", "main")
	require.Eventually(t, func() bool { return r.count("sync.connections WHERE phase = 'monitoring'") == 1 }, 2*time.Minute, 50*time.Millisecond)
	r.requireSameAsEHR()

	r.ok("pause", "main", "--type", "Observation")
	out := r.ok("sync", "main")
	require.Contains(t, out, "paused")
	r.ok("resume", "main", "--type", "Observation")
	require.NotContains(t, r.ok("sync", "main"), "paused")
}

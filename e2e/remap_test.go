package e2e

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/stack"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
	"github.com/cura-health/ehr-sync/workflows"
)

// remapped is what `starter remap -o json` prints.
type remapped struct {
	workflows.RemapResult

	Samples []struct {
		Type    cura.ResourceType     `json:"type"`
		Changes []store.ElementChange `json:"changes"`
	} `json:"samples"`
}

func (r *rig) remap(args ...string) remapped {
	r.t.Helper()
	var v remapped
	require.NoError(r.t, json.Unmarshal([]byte(r.ok(append([]string{"remap", "main", "-o", "json"}, args...)...)), &v))
	return v
}

func (v remapped) counts() (n store.RetakeCounts) {
	for _, t := range v.Types {
		n = n.Plus(t.RetakeCounts)
	}
	return n
}

// observe has the EHR hold an Observation of its first patient, in the hospital's own code and unit.
func (r *rig) observe(id, code, value string) {
	r.t.Helper()
	patient := idOf(r.t, r.resources("Patient")[0])
	require.NoError(r.t, r.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"`+id+`","status":"final","subject":{"reference":"Patient/`+patient+`"},
		"code":{"coding":[{"system":"http://st-mary.example/labs","code":"`+code+`"}]},"valueQuantity":{"value":`+value+`,"unit":"g/L"}}`)))
}

// killed waits until a worker has killed itself at the place.
func (r *rig) killed(worker *stack.Process, reached string) {
	r.t.Helper()
	select {
	case <-worker.Done():
	case <-time.After(2 * time.Minute):
		require.Fail(r.t, "the place was never reached")
	}
	text, err := os.ReadFile(reached)
	require.NoError(r.t, err, "it was the failpoint that killed the worker")
	require.Equal(r.t, failpoint.PageRetaken, string(text))
}

// TestWhatHasLandedIsMappedAgainWithoutTheEHR sets overrides for a hospital that has been read, looks at what they change, and has
// it mapped again by a worker that is killed on the way.
func TestWhatHasLandedIsMappedAgainWithoutTheEHR(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 25})
	r.observe("local-glucose-1", "GLU", "0.99")
	// Its number can't be converted: it goes into quarantine with the first file, and comes out with the second.
	r.observe("local-glucose-2", "LONG", "1.2345678901234567890123456789012345678901234567890")
	first, _ := r.worker("")
	_, code := r.onboard()
	require.Zero(t, code)
	require.NoError(t, first.Stop())

	r.ok("mapping", "set", "main", r.write("one.yaml", `
version: 1
codes:
  - {resource: Observation, from: {system: "http://st-mary.example/labs", code: GLU}, to: {system: "http://loinc.org", code: 2345-7}}
units:
  - {resource: Observation, code: any, from: g/L, to: mg/dL, factor: 100}
`))
	worker, reached := r.worker(failpoint.PageRetaken + ":2")
	done := make(chan remapped, 1)
	go func() { done <- r.remap("--dry-run", "--samples", "5") }()
	r.killed(worker, reached)
	worker, _ = r.worker("")
	dry := <-done
	all := r.count("sync.resources JOIN directory.orgs USING (org_id) WHERE kind = 'live'")
	n := dry.counts()
	require.Equal(t, store.RetakeCounts{Same: all - 2, Changed: 1, Rejected: 1}, n, "the page at which the worker was killed counts once")
	require.Len(t, dry.Samples, 2)
	require.Contains(t, dry.Samples[0].Changes, store.ElementChange{Path: "Observation.value.quantity.value", Before: "0.99", After: "99"})
	require.Equal(t, 1, r.count("audit.records WHERE kind = 'remap.viewed' AND actor = 'asserted:tester'"))
	require.Zero(t, r.count("labs.observations WHERE unit = 'mg/dL' AND ehr_id = 'local-glucose-1'"), "a dry run writes nothing")
	require.NoError(t, worker.Stop())

	worker, reached = r.worker(failpoint.PageRetaken + ":3")
	go func() { done <- r.remap() }()
	r.killed(worker, reached)
	r.worker("")
	wet := <-done
	require.Equal(t, n, wet.counts())
	require.Equal(t, 1, r.count("labs.observations WHERE unit = 'mg/dL' AND ehr_id = 'local-glucose-1'"))
	require.Equal(t, store.RetakeCounts{Same: all}, r.remap().counts(), "done again it changes nothing")

	out, errs, code := r.starter("quarantine", "retry", "main", "--reason", "more digits")
	require.Zero(t, code, errs)
	require.Contains(t, out, "0 are stored now, 1 remain in quarantine.")
	r.ok("mapping", "set", "main", r.write("two.yaml", "version: 2\n"))
	id := storetest.Query[string](t, r.db, "SELECT quarantine_id::text FROM sync.quarantine WHERE closed_at IS NULL")[0]
	require.Contains(t, r.ok("quarantine", "retry", "main", id), "1 are stored now, 0 remain in quarantine.")
	require.Equal(t, 2, r.count("labs.observations WHERE ehr_id IN ('local-glucose-1', 'local-glucose-2') AND mapping_version LIKE '1+%'"))

	for id, h := range r.histories() {
		text, err := protojson.Marshal(h)
		require.NoError(t, err)
		r.requireNothingPersonal(id, string(text))
	}
	r.saveHistories("")
}

package e2e

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/sandbox"
)

// large is a page of very large resources.
type large struct {
	resources int
	eachMB    int
	peakMB    float64
}

// measureLarge reads fifty Encounters of 10 MB each, which the EHR serves on one page unless it is asked for smaller ones.
func measureLarge(b *testing.B) large {
	b.Helper()
	l := large{resources: 50, eachMB: 10}
	r := newRig(b, sandbox.Config{Patients: 10}, "CURA_PAGE_SIZE=500")
	require.NoError(b, r.ehr.Put(json.RawMessage(`{"resourceType":"Patient","id":"p","birthDate":"1980-01-01","identifier":[{"system":"`+r.ehr.MRNSystem()+`","value":"LARGE"}]}`)))
	sizes := map[string]int{}
	for i := range l.resources {
		id := fmt.Sprintf("large-%d", i)
		require.NoError(b, r.ehr.Put(json.RawMessage(`{"resourceType":"Encounter","id":"`+id+`","status":"finished","class":{"code":"AMB"},"subject":{"reference":"Patient/p"}}`)))
		sizes["Encounter/"+id] = l.eachMB << 20
	}
	require.NoError(b, r.ehr.SetFaults(sandbox.Faults{Oversize: sizes}))
	process, _ := r.worker("")
	r.ok("onboard", "main", "--monitor", "72h", "--interval", "1h")
	r.await(b, "SELECT count(*) = 1 FROM sync.runs WHERE kind = 'backfill' AND finished_at IS NOT NULL")
	require.Equal(b, l.resources, r.count("cura.visits JOIN directory.orgs o USING (org_id) WHERE o.kind = 'live' AND ehr_id LIKE 'large-%'"))
	l.peakMB = peakRSS(b, process.PID())
	b.ReportMetric(l.peakMB, "MB-peak")
	require.Less(b, l.peakMB, 600.0, "memory is bounded by bytes, not by resources")
	return l
}

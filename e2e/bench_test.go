package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// BenchmarkBackfill onboards a hospital of 10,000 and then one of 100,000 resources, each with a worker of its own, and
// reports the worker's memory, the events in the backfill's history and the speed. What doesn't depend on how busy the
// machine is must hold: memory is flat and small, and histories are short.
func BenchmarkBackfill(b *testing.B) {
	peaks := map[int]float64{}
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("resources=%d", n), func(b *testing.B) {
			for b.Loop() {
				peaks[n] = backfillOnce(b, n)
			}
		})
	}
	ratio := peaks[100_000] / peaks[10_000]
	b.Logf("worker's peak memory, 100,000 against 10,000 resources: %.2f times", ratio)
	require.LessOrEqual(b, ratio, 1.3, "memory is flat")
}

func backfillOnce(b *testing.B, n int) (peakMB float64) {
	b.Helper()
	r := newRig(b, sandbox.Config{Patients: 500, Resources: n}, "CURA_PAGE_SIZE=500")
	process, _ := r.worker("")
	r.ok("onboard", "main", "--monitor", "72h", "--interval", "1h")
	require.Eventually(b, func() bool { return r.count("sync.connections WHERE phase IN ('monitoring', 'live')") == 1 }, 20*time.Minute, 200*time.Millisecond)

	served := 0
	for _, c := range storetest.Query[int64](b, r.db, "SELECT served FROM sync.run_counts JOIN sync.runs USING (org_id, run_id) WHERE kind = 'backfill'") {
		served += int(c)
	}
	require.GreaterOrEqual(b, served, n-100)
	seconds := storetest.Query[float64](b, r.db, "SELECT extract(epoch FROM finished_at - started_at)::float8 FROM sync.runs WHERE kind = 'backfill'")[0]
	events := 0
	for id, h := range r.histories() {
		if strings.HasPrefix(id, "backfill/") {
			events += len(h.GetEvents())
		}
	}
	peakMB = peakRSS(b, process.PID())
	b.ReportMetric(peakMB, "MB-peak")
	b.ReportMetric(float64(events), "events")
	b.ReportMetric(float64(served)/seconds, "resources/s")
	require.Less(b, peakMB, 256.0)
	if served >= 100_000 {
		require.LessOrEqual(b, events, served/200)
	} else {
		require.LessOrEqual(b, events, 150)
	}
	return peakMB
}

// peakRSS is the largest resident size that a process has had, in MB (VmHWM).
func peakRSS(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(b, err)
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(b, found)
	kb, err := strconv.ParseFloat(string(found[1]), 64)
	require.NoError(b, err)
	return kb / 1024
}

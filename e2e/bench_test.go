package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// BenchmarkPull measures what reading an EHR costs, on the whole system: the worker as a process, a real PostgreSQL, a real
// Temporal server, the sandbox EHR over TLS. It fails on what a busy machine can't change: memory and the length of
// histories. The rest it reports, and with CURA_BENCH_REPORT=FILE writes as a page of Markdown. CURA_BENCH_FULL=1 adds a
// million resources.
func BenchmarkPull(b *testing.B) {
	var report report
	sizes := []int{10_000, 100_000}
	rounds := 3
	if os.Getenv("CURA_BENCH_FULL") != "" {
		sizes = append(sizes, 1_000_000)
	}
	b.Run("stages", func(b *testing.B) {
		for b.Loop() {
			report.floors = measureFloors(b, 20_000, rounds)
		}
	})
	for _, n := range sizes {
		b.Run(fmt.Sprintf("resources=%d", n), func(b *testing.B) {
			for b.Loop() {
				report.sizes = append(report.sizes, measureSize(b, n, rounds))
				if n >= 100_000 {
					rounds = 1
				}
			}
		})
	}
	b.Run("large", func(b *testing.B) {
		for b.Loop() {
			report.large = measureLarge(b)
		}
	})
	if path := os.Getenv("CURA_BENCH_REPORT"); path != "" {
		report.write(b, path)
	}
	smallest, largest := report.sizes[0], report.sizes[len(report.sizes)-1]
	require.LessOrEqual(b, largest.peakMB/smallest.peakMB, 1.3, "memory is flat")
}

// size is what reading a hospital of so many resources has cost; of several runs the median.
type size struct {
	resources int
	// perSecond is of the backfill, from its first request to its last commit.
	perSecond float64
	// worker, database and temporal are milliseconds of CPU for 1,000 resources, while the backfill ran.
	worker, database, temporal float64
	peakMB                     float64
	// events and historyBytes are those of all histories of the backfill.
	events, historyBytes int
	bytesPerResource     float64
	passes               []incremental
}

// incremental is a pass after the backfill.
type incremental struct {
	name             string
	served, stored   int
	seconds          float64
	worker, database float64 // milliseconds of CPU in all
}

func measureSize(b *testing.B, n, rounds int) size {
	b.Helper()
	runs := make([]size, rounds)
	for i := range runs {
		runs[i] = backfillOnce(b, n)
	}
	s := runs[0]
	s.perSecond = median(runs, func(r size) float64 { return r.perSecond })
	s.worker = median(runs, func(r size) float64 { return r.worker })
	s.database = median(runs, func(r size) float64 { return r.database })
	s.temporal = median(runs, func(r size) float64 { return r.temporal })
	s.peakMB = median(runs, func(r size) float64 { return r.peakMB })
	for i := range s.passes {
		s.passes[i].seconds = median(runs, func(r size) float64 { return r.passes[i].seconds })
		s.passes[i].worker = median(runs, func(r size) float64 { return r.passes[i].worker })
		s.passes[i].database = median(runs, func(r size) float64 { return r.passes[i].database })
	}
	b.ReportMetric(s.perSecond, "resources/s")
	b.ReportMetric(s.worker+s.database, "cpu-ms/1k")
	b.ReportMetric(s.peakMB, "MB-peak")
	b.ReportMetric(float64(s.events), "events")
	require.Less(b, s.peakMB, 192.0, "memory is small")
	if n >= 100_000 {
		require.LessOrEqual(b, s.events, n/200, "histories are short")
	} else {
		require.LessOrEqual(b, s.events, 150, "histories are short")
	}
	return s
}

// backfillOnce onboards a hospital with a worker of its own, and reads it again in three ways.
func backfillOnce(b *testing.B, n int) size {
	b.Helper()
	r := newRig(b, sandbox.Config{Patients: max(500, n/200), Resources: n}, "CURA_PAGE_SIZE=500")
	process, _ := r.worker("")
	m := newMeter(b, process.PID())
	empty := r.databaseBytes(b)
	r.ok("onboard", "main", "--monitor", "72h", "--interval", "1h")
	r.await(b, "SELECT count(*) = 1 FROM sync.runs WHERE kind = 'backfill'")
	began := m.now(b)
	r.await(b, "SELECT count(*) = 1 FROM sync.runs WHERE kind = 'backfill' AND finished_at IS NOT NULL")
	cost := m.now(b).less(began)
	r.await(b, "SELECT count(*) = 1 FROM sync.connections WHERE phase IN ('monitoring', 'live')")

	served := r.count("sync.resources JOIN directory.orgs o USING (org_id) WHERE o.kind = 'live'")
	require.GreaterOrEqual(b, served, n-100)
	s := size{
		resources: served,
		perSecond: float64(served) / storetest.Query[float64](b, r.db, "SELECT extract(epoch FROM finished_at - started_at)::float8 FROM sync.runs WHERE kind = 'backfill'")[0],
		worker:    cost.worker * 1e6 / float64(served), database: cost.database * 1e6 / float64(served), temporal: cost.temporal * 1e6 / float64(served),
		bytesPerResource: float64(r.databaseBytes(b)-empty) / float64(served),
	}
	for id, h := range r.histories() {
		if strings.HasPrefix(id, "backfill/") {
			s.events += len(h.GetEvents())
			s.historyBytes += proto.Size(h)
		}
	}
	nothing := r.pass(b, m, "nothing new")
	r.changeOnePercent(b, served/100)
	changed := r.pass(b, m, "1 % changed")
	s.passes = []incremental{nothing, changed, r.pass(b, m, "everything again, nothing changed", "--since", "2020-01-01")}
	s.peakMB = peakRSS(b, process.PID())
	return s
}

// pass runs a sync to its end.
func (r *rig) pass(b *testing.B, m *meter, name string, args ...string) incremental {
	b.Helper()
	const counts = "sync.run_counts JOIN sync.runs USING (org_id, run_id)"
	sum := func(column string) int {
		return int(storetest.Query[int64](b, r.db, "SELECT coalesce(sum("+column+"), 0)::bigint FROM "+counts)[0])
	}
	served, stored, began, at := sum("served"), sum("stored"), m.now(b), time.Now()
	r.ok(append([]string{"sync", "main"}, args...)...)
	took, cost := time.Since(at), m.now(b).less(began)
	return incremental{
		name: name, served: sum("served") - served, stored: sum("stored") - stored, seconds: took.Seconds(),
		worker: cost.worker * 1000, database: cost.database * 1000,
	}
}

// changeOnePercent gives n Observations a new version.
func (r *rig) changeOnePercent(b *testing.B, n int) {
	b.Helper()
	patient := storetest.Query[string](b, r.db, "SELECT ehr_id FROM sync.patient_links JOIN directory.orgs o USING (org_id) WHERE o.kind = 'live' ORDER BY 1 LIMIT 1")[0]
	ids := storetest.Query[string](b, r.db, `
		SELECT ehr_id FROM sync.resources JOIN directory.orgs o USING (org_id)
		WHERE o.kind = 'live' AND resource_type = 'Observation' ORDER BY 1 LIMIT $1`, n)
	for _, id := range ids {
		require.NoError(b, r.ehr.Put(json.RawMessage(`{"resourceType":"Observation","id":"`+id+`","status":"amended","code":{"text":"x"},"valueString":"changed","subject":{"reference":"Patient/`+patient+`"}}`)))
	}
}

// await waits until a query on the rig's database gives true.
func (r *rig) await(b *testing.B, sql string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Minute)
	defer cancel()
	conn := r.superuser(b)
	for {
		var met bool
		require.NoError(b, conn.QueryRow(ctx, sql).Scan(&met))
		if met {
			return
		}
		timer := time.NewTimer(20 * time.Millisecond)
		select {
		case <-ctx.Done():
			require.NoError(b, ctx.Err(), sql)
		case <-timer.C:
		}
	}
}

// databaseBytes is what the tables take on disk, with their indexes.
func (r *rig) databaseBytes(b *testing.B) int64 {
	b.Helper()
	return storetest.Query[int64](b, r.db, `
		SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
		WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('sync', 'cura', 'labs', 'audit', 'directory')`)[0]
}

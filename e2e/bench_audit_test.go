package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// BenchmarkAudit measures what it costs to seal and to verify an audit log, by the store itself and on one connection. It reports, and with
// CURA_BENCH_REPORT=FILE writes its section of the page of Markdown that BenchmarkPull writes. CURA_BENCH_FULL=1 adds a million
// records, which have to be verified in less than a minute.
func BenchmarkAudit(b *testing.B) {
	sizes := []int{10_000, 100_000}
	if os.Getenv("CURA_BENCH_FULL") != "" {
		sizes = append(sizes, 1_000_000)
	}
	var all []auditCost
	for _, n := range sizes {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			for b.Loop() {
				all = append(all, measureAudit(b, n))
			}
		})
	}
	if path := os.Getenv("CURA_BENCH_REPORT"); path != "" {
		var out strings.Builder
		out.WriteString("Sealing hashes the records and stores their tree, 10,000 under a signed head; verifying reads every record again. Times are of the clock;\n" +
			"the records cost nothing more when they are written, since sealing comes behind.\n\n")
		out.WriteString("| records | sealing ms/1k | of it CPU ours | PostgreSQL | verifying s | of it CPU ours | PostgreSQL | bytes of hashes per record |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n")
		for _, c := range all {
			k := float64(c.records) / 1000
			fmt.Fprintf(&out, "| %d | %.1f | %.1f | %.1f | %.2f | %.2f | %.2f | %.0f |\n", c.records,
				1000*c.seal.Seconds()/k, 1000*c.sealing.worker/k, 1000*c.sealing.database/k, c.verify.Seconds(), c.verifying.worker, c.verifying.database, c.bytesPerRecord)
		}
		putSection(b, path, "Audit log", out.String())
	}
}

// auditCost is what a log of so many records has cost; worker is this process.
type auditCost struct {
	records            int
	seal, verify       time.Duration
	sealing, verifying used
	bytesPerRecord     float64
}

func measureAudit(b *testing.B, n int) auditCost {
	b.Helper()
	ctx, db := b.Context(), cluster.New(b)
	org, err := db.AddOrg(ctx, "hospital", "bench")
	require.NoError(b, err)
	super, err := pgx.Connect(ctx, db.SuperuserURL)
	require.NoError(b, err)
	defer super.Close(ctx)
	for _, statement := range []string{
		fmt.Sprintf(`INSERT INTO audit.records (org_id, seq, at, kind, actor, connection_id, run_id, outcome, details)
			SELECT org_id, 1 + n, now() + n * interval '1 ms', 'page.read', 'worker', gen_random_uuid(), gen_random_uuid(), 'success',
				json_build_object('type', 'Observation', 'served', 500, 'stored', n %% 500, 'unchanged', 500 - n %% 500, 'quarantined', 0)
			FROM audit.heads JOIN directory.orgs USING (org_id), generate_series(1, %d) AS n WHERE kind = 'live'`, n-1),
		fmt.Sprintf("UPDATE audit.heads SET seq = %d WHERE org_id = '%s'", n, org.ID),
		"ANALYZE audit.records",
	} {
		_, err := super.Exec(ctx, statement)
		require.NoError(b, err)
	}
	file := filepath.Join(b.TempDir(), "key")
	_, err = seal.GenerateKeyFile(file)
	require.NoError(b, err)
	key, err := seal.OpenKeyFile(file)
	require.NoError(b, err)
	folder, err := seal.MakeFolder(b.TempDir())
	require.NoError(b, err)

	m := newMeter(b, os.Getpid())
	c := auditCost{records: n}
	c.seal, c.sealing = measured(b, m, func() {
		head, err := db.SealAudit(ctx, org.ID, key, folder)
		require.NoError(b, err)
		require.EqualValues(b, n, head.Size)
	})
	c.verify, c.verifying = measured(b, m, func() {
		v, err := db.VerifyAudit(ctx, org.ID, folder, key.Verifiers())
		require.NoError(b, err)
		require.Nil(b, v.Bad)
		require.EqualValues(b, n, v.Last.Size)
	})
	c.bytesPerRecord = float64(storetest.Query[int64](b, db, "SELECT pg_total_relation_size('audit.hashes')")[0]) / float64(n)
	b.ReportMetric(c.seal.Seconds()*1e6/float64(n), "seal-ms/1k")
	b.ReportMetric(c.verify.Seconds(), "verify-s")
	if n >= 1_000_000 {
		require.Less(b, c.verify, time.Minute, "a million records are verified in a minute")
	}
	return c
}

// measured is the time and the CPU that fn takes.
func measured(b *testing.B, m *meter, fn func()) (time.Duration, used) {
	b.Helper()
	began, at := m.now(b), time.Now()
	fn()
	return time.Since(at), m.now(b).less(began)
}

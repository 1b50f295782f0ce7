package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// BenchmarkMatch measures what it costs to find the profiles that patients may be: half of them have one. It reports, and with
// CURA_BENCH_REPORT=FILE writes its section of the page of Markdown that BenchmarkPull writes. CURA_BENCH_FULL=1 looks a million
// patients up among a million profiles.
func BenchmarkMatch(b *testing.B) {
	sizes := []int{10_000, 100_000}
	if os.Getenv("CURA_BENCH_FULL") != "" {
		sizes = append(sizes, 1_000_000)
	}
	var all []matchCost
	for _, n := range sizes {
		b.Run(fmt.Sprintf("profiles=%d", n), func(b *testing.B) {
			for b.Loop() {
				all = append(all, measureMatch(b, n))
			}
		})
	}
	if path := os.Getenv("CURA_BENCH_REPORT"); path != "" {
		var out strings.Builder
		out.WriteString("As many patients as there are profiles, in pages of 500, one connection to PostgreSQL; half of them have a profile.\n\n")
		out.WriteString("| profiles | patients/s | index look-ups for each | times the first |\n|--:|--:|--:|--:|\n")
		for _, c := range all {
			fmt.Fprintf(&out, "| %d | %.0f | %.2f | %.2f |\n", c.profiles, c.perSecond, c.lookups, all[0].perSecond/c.perSecond)
		}
		putSection(b, path, "Matching", out.String())
	}
}

// matchCost is what matching against so many profiles has cost.
type matchCost struct {
	profiles  int
	perSecond float64
	// lookups are the scans of the index of identifiers, by patient.
	lookups float64
}

func measureMatch(b *testing.B, n int) matchCost {
	b.Helper()
	const page, system = 500, "urn:mrn"
	ctx, db := b.Context(), cluster.New(b)
	org, err := db.AddOrg(ctx, "hospital", "bench")
	require.NoError(b, err)
	connection := cura.Connection{
		ID: cura.ConnectionID(uuid.NewString()), OrgID: org.ID, Name: "main", BaseURL: "https://ehr.example/fhir", TokenURL: "https://ehr.example/token",
		ClientID: "cura", Match: cura.MatchStrategy{By: cura.MatchMRN, System: system}, EHRProfile: "generic", Types: cura.ResourceTypes(),
	}
	require.NoError(b, db.InOrg(ctx, org.ID, func(tx *store.Tx) error {
		if err := tx.AddConnection(ctx, connection, "", "bench"); err != nil {
			return err
		}
		return tx.StartRun(ctx, store.Run{ID: uuid.NewString(), Connection: connection.ID, Kind: cura.RunBackfill, WorkflowID: "bench"})
	}))
	for _, statement := range []string{
		`INSERT INTO sync.landing (org_id, connection_id, resource_type, ehr_id, content_hash, raw_bytes, run_id)
			SELECT org_id, connection_id, 'Patient', 'p', sha256(''), 0, run_id FROM sync.runs`,
		fmt.Sprintf(`INSERT INTO cura.profiles (org_id, profile_id, name, family, birth_date, birth_date_precision, record, connection_id, ehr_id, landing_id, mapping_version)
			SELECT l.org_id, md5(n::text)::uuid, 'A B', 'B', '1980-01-01', 'day', '{}', l.connection_id, 'p' || n, l.landing_id, '1'
			FROM sync.landing l, generate_series(1, %d) AS n`, n),
		fmt.Sprintf(`INSERT INTO cura.profile_identifiers (org_id, profile_id, connection_id, system, value)
			SELECT l.org_id, md5(n::text)::uuid, l.connection_id, '%s', lpad(n::text, 10, '0') FROM sync.landing l, generate_series(1, %d) AS n`, system, n),
		`ANALYZE cura.profiles, cura.profile_identifiers`,
	} {
		storetest.Query[string](b, db, statement)
	}
	dice := rand.New(rand.NewPCG(1, 2))
	found := 0
	matching, err := store.Open(ctx, db.URL)
	require.NoError(b, err)
	began := time.Now()
	for range n / page {
		values := make([]string, page)
		for i := range values {
			values[i] = fmt.Sprintf("%010d", 1+dice.IntN(2*n))
		}
		require.NoError(b, matching.InOrg(ctx, org.ID, func(tx *store.Tx) error {
			candidates, err := tx.Candidates(ctx, connection.ID, connection.Match, values)
			found += len(candidates)
			return err
		}))
	}
	took := time.Since(began)
	matching.Close() // a session that ends tells what it has scanned
	require.InDelta(b, n/2, found, float64(n)/10, "half of them have a profile")
	scans := storetest.Query[int64](b, db, "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'profile_identifiers_by_value'")[0]
	c := matchCost{profiles: n, perSecond: float64(n) / took.Seconds(), lookups: float64(scans) / float64(n)}
	b.ReportMetric(c.perSecond, "patients/s")
	b.ReportMetric(c.lookups, "look-ups/patient")
	return c
}
